//! `path`: either end alone sees to it.

use super::*;

/// Both ends reach each other both ways; `choices` are the offerer's and the answerer's.
fn world(choices: [PathChoice; 2]) -> World {
    let mut world = World::new(&offerer(), &answerer(), open);
    for (end, choice) in world.ends.iter_mut().zip(choices) {
        end.choice = choice;
    }
    world.introduce(1);
    world.introduce(0);
    world.run(Duration::from_secs(20));
    world
}

#[test]
fn one_end_that_wants_a_relay_or_none_has_its_way() {
    use PathChoice::{Auto, DirectOnly, RelayOnly};
    for (choices, path) in [
        ([Auto, RelayOnly], Path::RelayUdp),
        ([RelayOnly, Auto], Path::RelayUdp),
        ([RelayOnly, RelayOnly], Path::RelayUdp),
        ([Auto, DirectOnly], Path::Direct),
        ([DirectOnly, Auto], Path::Direct),
    ] {
        let world = world(choices);
        for side in [0, 1] {
            let all = world.selected[side].iter().map(|selected| selected.2);
            let all: Vec<Path> = all.collect();
            assert!(
                !all.is_empty() && all.iter().all(|seen| *seen == path),
                "{choices:?} {all:?}"
            );
        }
        assert_eq!(world.failed, [None, None]);
    }
}

#[test]
fn ends_that_contradict_each_other_have_no_path() {
    let world = world([PathChoice::RelayOnly, PathChoice::DirectOnly]);
    assert_eq!(world.selected.map(|all| all.len()), [0, 0]);
    assert!(world.failed.iter().all(Option::is_some));
}
