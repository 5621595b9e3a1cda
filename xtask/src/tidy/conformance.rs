//! The tests that turn-relay/conformance.toml names exist, and docs/conformance.md is of that table.
use super::{Files, Problem};
use crate::conformance::{Conformance, DOCUMENT, SOURCE, parts};
use crate::workspace::Package;

pub(super) fn check(files: &Files, members: &[&Package]) -> Vec<Problem> {
    let Some(source) = files.get(SOURCE) else {
        return vec![format!("{SOURCE} is missing")];
    };
    let conformance = match Conformance::parse(source) {
        Ok(conformance) => conformance,
        Err(error) => return vec![format!("{error:#}")],
    };
    let tests = conformance.tests();
    let unknown = tests.iter().filter(|test| !exists(files, members, test));
    let mut problems: Vec<Problem> = unknown
        .map(|test| format!("{SOURCE}: there is no test {test}"))
        .collect();
    if files.get(DOCUMENT) != Some(&conformance.green()) {
        problems.push(format!(
            "{DOCUMENT} is not what its tests write: cargo xtask conformance [ROW …]"
        ));
    }
    problems
}

/// The package has a file of the target's name, and something in it has the test's.
fn exists(files: &Files, members: &[&Package], name: &str) -> bool {
    let Some((package, target, test)) = parts(name) else {
        return false;
    };
    let Some(package) = members.iter().find(|member| member.name == package) else {
        return false;
    };
    let directory = package.directory();
    let (folder, file) = match target {
        "lib" => ("src", "src/lib.rs".to_owned()),
        target if target == package.name => ("src", "src/main.rs".to_owned()),
        target => ("tests", format!("tests/{target}.rs")),
    };
    let function = test.rsplit("::").next().unwrap_or(test);
    let defines = |source: &String| source.contains(&format!("fn {function}("));
    files.contains_key(&format!("{directory}/{file}"))
        && files
            .range(format!("{directory}/{folder}/")..)
            .take_while(|(path, _)| path.starts_with(&format!("{directory}/{folder}/")))
            .any(|(_, source)| defines(source))
}
