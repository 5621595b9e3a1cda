//! Which allocations are held, and what discovery is told about them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use activator_proto::{Input, Output};
use protocol::document::{Registration, relay_trouble::Kind};
use support::{INSTANCE, World, access, orders, relay};
use turn_client::Reserve;

fn published(outputs: &[Output]) -> Vec<&Registration> {
    fn registration(output: &Output) -> Option<&Registration> {
        match output {
            Output::Publish(registration) => registration.as_ref(),
            _ => None,
        }
    }
    outputs.iter().filter_map(registration).collect()
}

fn asked(outputs: &[Output]) -> Vec<String> {
    let relay = |output: &Output| match output {
        Output::Reserve(Reserve::FetchAccess { relay, .. }) => Some(relay.to_string()),
        _ => None,
    };
    outputs.iter().filter_map(relay).collect()
}

#[test]
fn an_allocation_is_made_on_every_relay_of_the_view_the_own_networks_included() {
    let mut world = World::new();
    world.outputs();
    world.add_relay("west-relay", "west");
    world.add_relay("east-relay", "east");
    assert_eq!(asked(&world.view()), ["east-relay", "west-relay"]);
    assert_eq!(asked(&world.view()), Vec::<String>::new(), "asked once");

    let outputs = world.input(Input::Access {
        relay: relay("west-relay"),
        access: Ok(access()),
    });
    assert_eq!(
        outputs,
        [Output::Reserve(Reserve::Allocate {
            relay: relay("west-relay"),
            access: access()
        })]
    );
}

#[test]
fn the_registration_is_published_at_the_start_and_then_only_when_it_changes() {
    let mut world = World::new();
    let outputs = world.outputs();
    let first = published(&outputs);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].instance, INSTANCE);
    assert!(first[0].footholds.is_empty());
    assert_eq!(first[0].services.len(), 3);

    world.add_relay("west-relay", "west");
    assert!(published(&world.view()).is_empty());
    let outputs = world.allocate("west-relay", "10.0.0.2:50000");
    let footholds = &published(&outputs)[0].footholds;
    assert_eq!(footholds[0].network, "west");
    assert_eq!(footholds[0].relayed_addresses, ["10.0.0.2:50000"]);

    assert!(world.allocated("west-relay", "10.0.0.2:50000").is_empty());
    assert!(world.view().is_empty());
}

#[test]
fn a_relay_that_restarts_is_registered_again_with_its_new_address() {
    let mut world = World::new().with_footholds();
    let lost = Input::AllocationLost {
        relay: relay("west-relay"),
        trouble: Kind::Silent,
    };
    let outputs = world.input(lost);
    assert_eq!(
        published(&outputs)[0].footholds.len(),
        1,
        "only east is left"
    );
    let outputs = world.allocated("west-relay", "10.0.0.2:50777");
    let registration = published(&outputs)[0];
    assert_eq!(
        registration.footholds[1].relayed_addresses,
        ["10.0.0.2:50777"]
    );
    assert_eq!(registration.instance, INSTANCE, "the process is the same");
}

#[test]
fn links_lose_a_way_with_the_foothold_they_stand_on_and_gain_the_next() {
    let mut world = World::new().with_footholds();
    world.offer("west/workload/app", orders(1));
    world.offer("east/workload/app", orders(1));
    let lost = Input::AllocationLost {
        relay: relay("west-relay"),
        trouble: Kind::Silent,
    };
    let retired: Vec<(u64, String)> = world
        .input(lost)
        .iter()
        .filter_map(|output| match output {
            Output::Retire { link, relayed, .. } => Some((link.0, relayed[0].to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(retired, [(1, "10.0.0.2:50000".to_owned())]);
    let outputs = world.allocated("west-relay", "10.0.0.2:50777");
    let extended: Vec<(u64, u64, String)> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Extend {
                link,
                offered_as,
                relayed,
                ..
            } => Some((link.0, *offered_as, relayed[0].to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(extended, [(1, 1, "10.0.0.2:50777".to_owned())]);
}

#[test]
fn a_second_relay_extends_links_and_a_third_does_not() {
    let mut world = World::new().with_footholds();
    world.offer("west/workload/app", orders(1));
    for (name, more) in [("west-second", 1), ("west-third", 0)] {
        world.add_relay(name, "west");
        world.view();
        let outputs = world.allocate(name, "10.0.0.4:50000");
        let extended = outputs
            .iter()
            .filter(|output| matches!(output, Output::Extend { .. }));
        assert_eq!(extended.count(), more, "{name}");
    }
}

fn ending(name: &str) -> Input<'static> {
    Input::AllocationEnding { relay: relay(name) }
}

fn is_told_to_leave(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(output, Output::Leave { relay: name, relayed }
            if *name == relay("west-relay") && relayed[0].to_string() == "10.0.0.2:50000")
    })
}

#[test]
fn a_relay_that_drains_is_left_when_there_is_another_one_and_given_back_when_it_is_left() {
    let mut world = World::new().with_footholds();
    world.add_relay("west-second", "west");
    world.view();
    world.allocate("west-second", "10.0.0.4:50000");
    world.offer("west/workload/app", orders(1));
    world.add_relay("west-third", "west");
    world.view();
    world.allocate("west-third", "10.0.0.6:50000");

    let outputs = world.input(ending("west-relay"));
    let third = |output: &Output| matches!(output, Output::Extend { relay: name, .. } if *name == relay("west-third"));
    assert!(outputs.iter().any(third), "two that last: {outputs:?}");
    assert!(published(&outputs).is_empty(), "it still carries");
    assert!(is_told_to_leave(&world.advance(Duration::ZERO)));
    assert!(!is_told_to_leave(
        &world.advance(Duration::from_millis(400))
    ));
    assert!(is_told_to_leave(&world.advance(Duration::from_millis(100))));

    let outputs = world.offer("west/workload/other", orders(2));
    let Some(Output::Answer { relays, .. }) = outputs.first() else {
        panic!("{outputs:?}")
    };
    assert!(!relays.contains(&relay("west-relay")), "{relays:?}");

    let left = Input::Left {
        relay: relay("west-relay"),
    };
    let give_back = Output::Reserve(Reserve::GiveBack {
        relay: relay("west-relay"),
    });
    assert_eq!(world.input(left), [give_back]);
    let outputs = world.input(Input::AllocationLost {
        relay: relay("west-relay"),
        trouble: Kind::Refused,
    });
    assert_eq!(published(&outputs)[0].footholds.len(), 3);
    let retired = outputs
        .iter()
        .filter(|output| matches!(output, Output::Retire { .. }));
    assert_eq!(retired.count(), 1, "by the one link that had it");
    assert!(!is_told_to_leave(&world.advance(Duration::from_secs(1))));
    assert!(world.gateway.poll_timeout().is_none_or(|at| at > world.now));

    // Later it is there again, and as good as any.
    world.allocated("west-relay", "10.0.0.2:50001");
    let outputs = world.offer("west/workload/third", orders(3));
    let Some(Output::Answer { relays, .. }) = outputs.first() else {
        panic!("{outputs:?}")
    };
    assert!(relays.contains(&relay("west-relay")), "{relays:?}");
}

#[test]
fn a_relay_that_drains_alone_is_used_until_there_is_another_one() {
    let mut world = World::new().with_footholds();
    world.offer("west/workload/app", orders(1));
    world.input(ending("west-relay"));
    for _ in 0..10 {
        assert!(!is_told_to_leave(
            &world.advance(Duration::from_millis(500))
        ));
    }
    let outputs = world.offer("west/workload/other", orders(2));
    assert!(matches!(outputs[..], [Output::Answer { .. }]));
    world.add_relay("west-second", "west");
    world.view();
    let outputs = world.allocate("west-second", "10.0.0.4:50000");
    let extended = outputs
        .iter()
        .filter(|output| matches!(output, Output::Extend { .. }));
    assert_eq!(extended.count(), 2);
    assert!(is_told_to_leave(&world.advance(Duration::from_millis(500))));
}

#[test]
fn a_relay_that_leaves_the_mesh_is_released() {
    let mut world = World::new().with_footholds();
    world.relays.remove(&relay("west-relay"));
    let outputs = world.view();
    assert!(outputs.contains(&Output::Reserve(Reserve::Release {
        relay: relay("west-relay")
    })));
    assert_eq!(published(&outputs)[0].footholds.len(), 1);
}

#[test]
fn a_relay_with_a_new_url_is_released_and_reserved_anew() {
    let mut world = World::new().with_footholds();
    world.relays.get_mut(&relay("west-relay")).unwrap().url = "turn:203.0.113.99".to_owned();
    let outputs = world.view();
    assert!(outputs.contains(&Output::Reserve(Reserve::Release {
        relay: relay("west-relay")
    })));
    assert_eq!(asked(&outputs), ["west-relay"]);
}

#[test]
fn a_relay_that_cannot_be_used_is_said_and_does_not_disturb_the_others() {
    let mut world = World::new();
    world.outputs();
    world.add_relay("a", "west");
    world.add_relay("b", "west");
    world.add_relay("c", "west");
    world.relays.get_mut(&relay("a")).unwrap().url = "stun:203.0.113.12".to_owned();
    world.relays.get_mut(&relay("b")).unwrap().network = "NOT A NAME".to_owned();
    let outputs = world.view();
    assert_eq!(asked(&outputs), ["c"]);
    let ignored = outputs
        .iter()
        .filter(|output| matches!(output, Output::Reserve(Reserve::RelayIgnored { .. })));
    assert_eq!(ignored.count(), 2);
}

#[test]
fn a_credential_that_cannot_be_had_is_asked_for_again_with_back_off() {
    let mut world = World::new();
    world.add_relay("west-relay", "west");
    world.view();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let failed = Input::Access {
            relay: relay("west-relay"),
            access: Err("away".to_owned()),
        };
        let outputs = world.input(failed);
        // The directory is told why, the first time.
        let [
            Output::Reserve(Reserve::AccessFailed { retry_in, .. }),
            ref told @ ..,
        ] = outputs[..]
        else {
            panic!("{outputs:?}")
        };
        assert_eq!(told.len(), usize::from(waits.is_empty()), "{told:?}");
        assert!(
            world
                .advance(retry_in - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(
            asked(&world.advance(Duration::from_millis(1))),
            ["west-relay"]
        );
        waits.push(retry_in);
    }
    assert!(waits[0] < Duration::from_secs(1), "{waits:?}");
    assert!(
        waits.iter().all(|wait| *wait <= Duration::from_secs(5)),
        "{waits:?}"
    );
    assert!(waits[7] >= Duration::from_secs(3), "{waits:?}");
}

#[test]
fn a_credential_is_exchanged_before_it_expires() {
    let mut world = World::new().with_footholds();
    assert!(world.advance(Duration::from_secs(399)).is_empty());
    assert_eq!(
        asked(&world.advance(Duration::from_secs(1))),
        ["east-relay", "west-relay"]
    );
    let outputs = world.input(Input::Access {
        relay: relay("west-relay"),
        access: Ok(access()),
    });
    assert_eq!(
        outputs,
        [Output::Reserve(Reserve::RenewCredential {
            relay: relay("west-relay"),
            access: access()
        })]
    );
}

#[test]
fn a_refused_credential_is_exchanged_at_once_but_not_in_a_loop() {
    let mut world = World::new().with_footholds();
    let refused = || Input::CredentialRefused {
        relay: relay("west-relay"),
    };
    assert_eq!(asked(&world.input(refused())), ["west-relay"]);
    assert!(world.input(refused()).is_empty(), "it is on its way");
    let fetched = || Input::Access {
        relay: relay("west-relay"),
        access: Ok(access()),
    };
    world.input(fetched());
    let outputs = world.input(refused());
    assert!(asked(&outputs).is_empty(), "no better: later");
    let troubles = &published(&outputs)[0].troubles;
    assert_eq!(troubles[0].kind(), Kind::CredentialRefused, "and said so");
    assert_eq!(
        asked(&world.advance(Duration::from_secs(4))),
        ["west-relay"]
    );

    world.input(fetched());
    world.allocated("west-relay", "10.0.0.2:50001");
    assert_eq!(
        asked(&world.input(refused())),
        ["west-relay"],
        "accepted meanwhile"
    );
}

#[test]
fn an_allocation_that_could_not_be_started_is_started_later() {
    let mut world = World::new();
    world.add_relay("west-relay", "west");
    world.view();
    world.input(Input::Access {
        relay: relay("west-relay"),
        access: Ok(access()),
    });
    assert!(
        world
            .input(Input::NotStarted {
                relay: relay("west-relay")
            })
            .is_empty()
    );
    assert_eq!(
        asked(&world.advance(Duration::from_secs(4))),
        ["west-relay"]
    );
    let outputs = world.input(Input::Access {
        relay: relay("west-relay"),
        access: Ok(access()),
    });
    assert_eq!(
        outputs,
        [Output::Reserve(Reserve::Allocate {
            relay: relay("west-relay"),
            access: access()
        })]
    );
}

#[test]
fn at_the_end_everything_is_withdrawn_and_released() {
    let mut world = World::new().with_footholds();
    world.offer("west/workload/app", orders(1));
    let outputs = world.input(Input::Shutdown);
    assert!(outputs.contains(&Output::Publish(None)));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Close { .. }))
    );
    let released = outputs
        .iter()
        .filter(|output| matches!(output, Output::Reserve(Reserve::Release { .. })));
    assert_eq!(released.count(), 2);
    assert!(world.view().is_empty());
    assert!(world.input(Input::Shutdown).is_empty());
    let reason = support::refusal(&world.offer("west/workload/app", orders(2)));
    assert!(reason.contains("shutting down"), "{reason}");
}

#[test]
fn a_registration_says_why_nothing_is_held_on_a_relay() {
    let mut world = World::new().with_footholds();
    let troubles = |outputs: &[Output]| -> Vec<(String, i32)> {
        let registration = published(outputs)[0];
        let of = |trouble: &protocol::document::RelayTrouble| (trouble.relay.clone(), trouble.kind);
        registration.troubles.iter().map(of).collect()
    };
    let lost = |trouble| Input::AllocationLost {
        relay: relay("west-relay"),
        trouble,
    };
    let west = |kind: Kind| vec![("west-relay".to_owned(), i32::from(kind))];
    assert_eq!(
        troubles(&world.input(lost(Kind::Silent))),
        west(Kind::Silent)
    );
    assert!(
        published(&world.input(lost(Kind::Silent))).is_empty(),
        "said already"
    );
    let outputs = world.input(lost(Kind::CredentialRefused));
    assert_eq!(troubles(&outputs), west(Kind::CredentialRefused));
    let outputs = world.allocated("west-relay", "10.0.0.2:50777");
    assert_eq!(troubles(&outputs), Vec::new(), "it is held again");
}
