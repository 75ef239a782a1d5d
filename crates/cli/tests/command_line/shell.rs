//! Completions and manual pages.

use std::fs;

use crate::world::World;

#[test]
fn every_shell_gets_a_script() {
    let w = World::new();
    for (shell, parts) in [
        ("bash", ["_flawtune()", "--num-defect-samples"]),
        ("zsh", ["#compdef flawtune", "--num-defect-samples"]),
        ("fish", ["complete -c flawtune", "num-defect-samples"]),
        (
            "powershell",
            ["Register-ArgumentCompleter", "--num-defect-samples"],
        ),
        ("elvish", ["edit:completion", "--num-defect-samples"]),
    ] {
        let run = w.run(&format!("completions {shell}")).succeeds();
        assert!(
            parts.iter().all(|p| run.stdout.contains(p)),
            "{shell}: {}",
            run.stdout
        );
        assert_eq!(run.stderr, "");
    }
    w.run("completions tcsh").refuses(&["tcsh", "powershell"]);
}

#[test]
fn every_command_has_a_page() {
    let w = World::new();
    let main = w.run("man").succeeds();
    assert!(
        main.stdout.contains(".TH flawtune 1 \"\" \"flawtune ")
            && main.stdout.contains("flawtune\\-train(1)"),
        "{}",
        main.stdout
    );
    let run = w.run("man cache clear").succeeds();
    assert!(
        run.stdout.contains(".TH flawtune-cache-clear 1"),
        "{}",
        run.stdout
    );
    // a line of the shell stays a line
    assert!(
        run.stdout
            .contains(".SH EXAMPLES\n.nf\nflawtune cache clear\n"),
        "{}",
        run.stdout
    );
    w.run("man trian")
        .refuses(&["flawtune trian", "flawtune --help"]);
    w.run("man train --output-dir {}/x")
        .refuses(&["--output-dir"]);

    assert_eq!(w.run("man --output-dir {}/man/man1").succeeds().stdout, "");
    let read = |name: &str| fs::read_to_string(w.path("man/man1").join(name)).unwrap();
    assert_eq!(read("flawtune.1"), main.stdout);
    assert_eq!(read("flawtune-cache-clear.1"), run.stdout);
    // as many as there are commands in the pages that list them
    let listed = |text: &str| text.matches("(1)\n").count();
    let files = fs::read_dir(w.path("man/man1")).unwrap().count();
    assert_eq!(
        files,
        1 + listed(&main.stdout) + listed(&read("flawtune-cache.1"))
    );
}
