/* lookup A|AAAA|ANY NAME: what musl gets. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
    char text[INET6_ADDRSTRLEN];
    if (argc != 3) return 64;
    if (!strcmp(argv[1], "A")) hints.ai_family = AF_INET;
    if (!strcmp(argv[1], "AAAA")) hints.ai_family = AF_INET6;
    int code = getaddrinfo(argv[2], NULL, &hints, &found);
    if (code) puts(code == EAI_AGAIN ? ":again" : ":notfound");
    for (; found; found = found->ai_next) {
        const void *address = found->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, address, text, sizeof text));
    }
}
