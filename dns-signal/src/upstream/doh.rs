//! DNS over HTTPS ([RFC 8484](https://www.rfc-editor.org/rfc/rfc8484)): a POST for each query, all on one connection of HTTP/2.
//! No cache of HTTP answers a POST with what it kept (RFC 9111 section 4), so TTLs need no correction for an answer's age.

use std::io;

use bytes::Bytes;
use dns_signal_proto::query;
use h2::client::{Builder, SendRequest};
use http::{Request, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::encrypted::Trouble;

const MESSAGE: &str = "application/dns-message";
/// The largest message of DNS.
const MAX_ANSWER: usize = 65_535;
/// What of an answer's header is read, bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// Answers that may be on their way together, bytes.
const WINDOW: u32 = 1 << 20;

/// Asks on one connection, which ends when nobody holds one of these.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    requests: SendRequest<Bytes>,
    uri: Uri,
}

/// How to ask for `uri` on `stream`, and what has to run meanwhile; it ends with the connection.
pub(super) async fn start<S>(
    stream: S,
    uri: Uri,
) -> io::Result<(Asker, impl Future<Output = ()> + Send)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEADERS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let running = async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an upstream ended");
        }
    };
    Ok((Asker { requests, uri }, running))
}

impl Asker {
    /// The answer, with the query's id.
    pub(super) async fn ask(&self, mut message: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let lost = |error: h2::Error| Trouble::Lost(io::Error::other(error));
        let id = message.first_chunk().copied().unwrap_or_default();
        // RFC 8484 section 4.1: the stream says what an answer belongs to.
        query::set_id(&mut message, 0);
        let request = Request::post(self.uri.clone())
            .header(header::ACCEPT, MESSAGE)
            .header(header::CONTENT_TYPE, MESSAGE)
            .header(header::CONTENT_LENGTH, message.len())
            .body(())
            .map_err(|error| Trouble::Refused(error.to_string()))?;
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let (response, mut body) = requests.send_request(request, false).map_err(lost)?;
        body.send_data(message.into(), true).map_err(lost)?;
        let response = response.await.map_err(lost)?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let is_message = kind.is_some_and(|kind| kind.starts_with(MESSAGE));
        if status != StatusCode::OK || !is_message {
            let problem = match status {
                StatusCode::OK => "it answers with something else than DNS".to_owned(),
                status => format!("it answers with the HTTP status {status}"),
            };
            let path = self.uri.path();
            return Err(Trouble::Refused(format!(
                "{problem}: is the path {path} right?"
            )));
        }
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(lost)?;
            if answer.len() + chunk.len() > MAX_ANSWER {
                let problem = "its answer is longer than DNS has them";
                return Err(Trouble::Refused(problem.to_owned()));
            }
            answer.extend_from_slice(&chunk);
            let released = body.flow_control().release_capacity(chunk.len());
            released.map_err(lost)?;
        }
        query::set_id(&mut answer, u16::from_be_bytes(id));
        Ok(answer)
    }
}
