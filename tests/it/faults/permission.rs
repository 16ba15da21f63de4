//! Files that the user who runs ostiary may not use.

use std::process::Command;

use crate::process::set_mode;

use super::*;

/// A server to which permissions apply: the superuser's may be given up, others have none to give up.
fn bound_by_permissions(place: &Place) -> Command {
    let data = place.data();
    let arguments = Place::serving(data.to_str().unwrap(), &[]);
    if !rustix::process::geteuid().is_root() {
        return place.command(&arguments);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search", env!("CARGO_BIN_EXE_ostiary")]).args(&arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(place.path(""));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_used_is_named_at_the_start_and_left_as_it_is() {
    let place = Place::new();
    let story = Story::begin(place.serve(&[]), &place).await;
    assert_eq!(story.server.stop().code, Some(0));
    let file = store(&place);
    set_mode(&file, 0);
    let refused = complaint(&Process::spawn(bound_by_permissions(&place)).ended());
    let remedy = "Permission denied (os error 13); give it to the user that runs ostiary, who must read and write it";
    assert!(refused.contains(&format!("{}: {remedy}", file.display())), "{refused}");
    set_mode(&file, 0o600);
    set_mode(&place.data(), 0o500);
    let refused = complaint(&Process::spawn(bound_by_permissions(&place)).ended());
    assert!(refused.contains("the data directory can't be written to: Permission denied"), "{refused}");
    assert!(refused.contains("; give it to the user that runs ostiary, or name another with --data-dir"), "{refused}");
    set_mode(&place.data(), 0o700);
    assert_eq!(place.serve(&[]).stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_lost_while_serving_harms_nothing_until_the_next_start() {
    let place = Place::new();
    let server = Server::await_serving(Process::spawn(bound_by_permissions(&place)));
    let mut story = Story::begin(server, &place).await;
    let root_key = place.first_root_key();
    set_mode(&store(&place), 0);
    set_mode(&place.data(), 0);
    story.create(1).await.unwrap();
    // Even an error of the disk does not make it let go of the file.
    limit_files(&story.server.process, Some(0));
    story.create(1).await.unwrap_err();
    await_health(&story.client, READ_ONLY).await;
    story.verifies_all().await;
    limit_files(&story.server.process, None);
    await_health(&story.client, ALL_WELL).await;
    story.create(1).await.unwrap();
    assert_eq!(story.server.stop().code, Some(0));
    set_mode(&place.data(), 0o700);
    set_mode(&store(&place), 0o600);
    let server = place.serve(&[]);
    let client = server.client(&root_key).await;
    let story = Story { server, client, ..story };
    story.holds().await;
}
