//! What [`crate::Sessions`] promises.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case of a test suite says what is wrong by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use contract::session::{Failure, SiteHealth, State, Transition, TransitionRefused};
use contract::{ClientId, Generation, Session, SessionId, Timestamp};
use tokio::task::JoinSet;

use super::records::{client, dawn, proof_key, session, session_id, thread};
use super::{StoreUnderTest, eventually};
use crate::{Created, NONCE_MAX_BYTES, PortError, Removed, Sessions, TransitionFailed};

/// Turns each case into a test.
#[macro_export]
macro_rules! sessions_conformance {
    ($under_test:expr) => {
        $crate::conformance_cases! { sessions, $under_test,
            a_session_is_read_as_it_was_created
            an_unknown_session_is_none
            a_session_that_is_created_again_is_the_one_that_is_there
            an_id_is_taken_once
            a_thread_belongs_to_its_client
            one_session_a_thread_even_when_two_create_it_at_once
            sessions_are_listed_oldest_first
            a_transition_is_stored
            a_refused_transition_changes_nothing
            a_session_that_is_not_there_takes_no_transition
            an_older_generation_is_refused
            only_one_of_many_concurrent_wakes_wins
            slots_are_never_exceeded
            a_client_without_slots_wakes_nothing
            slots_of_one_client_are_not_those_of_another
            a_session_that_sleeps_gives_its_slot_back
            a_session_that_fails_gives_its_slot_back
            a_slot_is_free_when_the_lease_of_its_holder_is_over
            a_session_that_is_woken_again_keeps_its_slot
            whoever_lost_its_slot_cannot_go_on
            a_late_renewal_stands_while_nobody_took_the_slot
            of_a_late_renewal_and_a_wake_for_its_slot_one_wins
            a_thread_whose_session_is_removed_can_have_another
            a_session_that_was_woken_meanwhile_is_not_removed
            a_session_that_somebody_acts_for_is_not_removed
            a_session_that_was_abandoned_is_removed_with_its_slot
            what_is_left_of_a_session_that_is_gone_frees_its_thread
            a_thread_of_another_session_stays
            of_a_removal_and_a_wake_one_wins
            what_may_be_used_once_is_used_once
            of_many_who_spend_one_nonce_one_is_told_so
            a_nonce_that_is_too_long_is_refused
            whoever_waits_for_a_change_does_not_wait_for_ever
        }
    };
}

/// Whole, by its id and by its thread.
pub async fn a_session_is_read_as_it_was_created(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    let created = session(&amelia, 1);
    assert_eq!(
        sessions.create(&created).await.expect("create"),
        Created::New
    );
    assert_eq!(
        sessions.get(&created.session_id).await.expect("get"),
        Some(created.clone())
    );
    let found = sessions
        .find(&amelia, &thread("thread-1"))
        .await
        .expect("find");
    assert_eq!(found, Some(created.session_id));
}

/// Whether it is looked for by id or by thread.
pub async fn an_unknown_session_is_none(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    sessions.create(&session(&amelia, 1)).await.expect("create");
    assert_eq!(
        sessions.get(&session_id(&amelia, 2)).await.expect("get"),
        None
    );
    assert_eq!(
        sessions
            .find(&amelia, &thread("thread-2"))
            .await
            .expect("find"),
        None
    );
}

/// As after a reply that was lost.
pub async fn a_session_that_is_created_again_is_the_one_that_is_there(
    under_test: &dyn StoreUnderTest,
) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    let created = session(&amelia, 1);
    sessions.create(&created).await.expect("create");
    let again = Session {
        user_id: "mia@example.com".to_owned(),
        ..created.clone()
    };
    let answer = sessions.create(&again).await.expect("create again");
    assert_eq!(answer, Created::ThreadTaken(created.session_id.clone()));
    assert_eq!(
        sessions.get(&created.session_id).await.expect("get"),
        Some(created)
    );
}

/// Even for another thread, and the thread is not taken by the attempt.
pub async fn an_id_is_taken_once(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    sessions.create(&session(&amelia, 1)).await.expect("create");
    let other_thread = Session {
        thread_id: thread("thread-2"),
        ..session(&amelia, 1)
    };
    assert_eq!(
        sessions.create(&other_thread).await.expect("create"),
        Created::IdTaken
    );
    assert_eq!(
        sessions
            .find(&amelia, &thread("thread-2"))
            .await
            .expect("find"),
        None
    );
    assert_eq!(
        sessions.get(&session_id(&amelia, 1)).await.expect("get"),
        Some(session(&amelia, 1))
    );
}

/// Two clients may use the same name for their conversations.
pub async fn a_thread_belongs_to_its_client(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    for name in ["amelia", "mia"] {
        let created = sessions
            .create(&session(&client(name), 1))
            .await
            .expect("create");
        assert_eq!(created, Created::New);
    }
    let found = sessions
        .find(&client("mia"), &thread("thread-1"))
        .await
        .expect("find");
    assert_eq!(found, Some(session_id(&client("mia"), 1)));
}

/// And everybody else is told which one.
pub async fn one_session_a_thread_even_when_two_create_it_at_once(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    let mut creators = JoinSet::new();
    for number in 1..=10 {
        let mine = Session {
            thread_id: thread("<one@mail>"),
            ..session(&amelia, number)
        };
        let sessions = Arc::clone(&sessions);
        creators.spawn(async move {
            (
                mine.session_id.clone(),
                sessions.create(&mine).await.expect("create"),
            )
        });
    }
    let answers = creators.join_all().await;
    let winner = sessions
        .find(&amelia, &thread("<one@mail>"))
        .await
        .expect("find")
        .expect("one was created");
    for (mine, answer) in answers {
        let expected = if mine == winner {
            Created::New
        } else {
            Created::ThreadTaken(winner.clone())
        };
        assert_eq!(answer, expected);
        let stored = sessions.get(&mine).await.expect("get");
        assert_eq!(
            stored.is_some(),
            mine == winner,
            "a loser leaves no session behind"
        );
    }
}

/// And only those of the client.
pub async fn sessions_are_listed_oldest_first(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let amelia = client("amelia");
    for number in [3, 1, 2] {
        let created_at = dawn().plus(Duration::from_mins(u64::from(number)));
        sessions
            .create(&Session {
                created_at,
                ..session(&amelia, number)
            })
            .await
            .expect("create");
    }
    sessions
        .create(&session(&client("mia"), 1))
        .await
        .expect("create");
    let expected = [1, 2, 3].map(|number| session_id(&amelia, number));
    eventually(async || {
        let listed = sessions.list(&amelia).await.expect("list");
        let ids: Vec<_> = listed
            .into_iter()
            .map(|session| session.session_id)
            .collect();
        if ids == expected {
            Ok(())
        } else {
            Err(format!("{ids:?} are listed"))
        }
    })
    .await;
}

/// As the contract's table has it.
pub async fn a_transition_is_stored(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let woken = story.wake(1, dawn()).await.expect("dormant");
    assert_eq!(
        (woken.state, woken.generation),
        (State::Waking, Generation(1))
    );
    assert_eq!(story.read(1).await, woken);
    let ready = story.serve(1, dawn()).await;
    assert_eq!(
        (ready.state, ready.container_ip.as_deref()),
        (State::Ready, Some("10.0.0.1"))
    );
    assert_eq!(story.read(1).await, ready);
}

/// The answer is the contract's.
pub async fn a_refused_transition_changes_nothing(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let before = story.read(1).await;
    let answer = story
        .take(
            1,
            Generation(0),
            &Transition::Drain {
                seen_activity: None,
            },
            dawn(),
        )
        .await;
    let refused = Transition::Drain {
        seen_activity: None,
    }
    .apply(&before, Generation(0), dawn())
    .expect_err("it sleeps");
    assert_eq!(answer, Err(TransitionFailed::Refused(refused)));
    assert_eq!(story.read(1).await, before);
}

/// And is not made by one.
pub async fn a_session_that_is_not_there_takes_no_transition(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    assert_eq!(
        story.wake(11, dawn()).await,
        Err(TransitionFailed::NoSuchSession)
    );
    assert_eq!(story.sessions.get(&story.id(11)).await.expect("get"), None);
}

/// Whatever it asks for: the environment of an older generation steps down.
pub async fn an_older_generation_is_refused(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("dormant");
    let later = dawn().plus(LEASE * 2);
    let woken = story.wake(1, later).await.expect("abandoned");
    assert_eq!(woken.generation, Generation(2));
    for transition in [
        claim(later),
        renew(later),
        fail(),
        Transition::Sleep { parked: Vec::new() },
    ] {
        let answer = story.take(1, Generation(1), &transition, later).await;
        let refused = TransitionRefused::OtherGeneration {
            acting: Generation(2),
            asked: Generation(1),
        };
        assert_eq!(answer, Err(TransitionFailed::Refused(refused)));
    }
    assert_eq!(story.read(1).await, woken);
}

/// One environment is launched, however many people open the page at once.
pub async fn only_one_of_many_concurrent_wakes_wins(under_test: &dyn StoreUnderTest) {
    let story = Arc::new(Story::begin(under_test, 5).await);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let story = Arc::clone(&story);
        callers.spawn(async move {
            story
                .take(1, Generation(0), &wake(Generation(0), dawn()), dawn())
                .await
        });
    }
    let mut won = 0;
    for answer in callers.join_all().await {
        match answer {
            Ok(_) => won += 1,
            Err(TransitionFailed::Refused(TransitionRefused::OtherGeneration {
                acting, ..
            })) => {
                assert_eq!(acting, Generation(1));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(story.read(1).await.generation, Generation(1));
}

/// However many sessions are woken at once; and all slots are used.
pub async fn slots_are_never_exceeded(under_test: &dyn StoreUnderTest) {
    let story = Arc::new(Story::begin(under_test, 3).await);
    let mut callers = JoinSet::new();
    for number in 1..=10 {
        let story = Arc::clone(&story);
        callers.spawn(async move { story.wake(number, dawn()).await });
    }
    let (mut won, mut lost) = (0, 0);
    for answer in callers.join_all().await {
        match answer {
            Ok(_) => won += 1,
            Err(TransitionFailed::NoSlot { limit: 3 }) => lost += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((won, lost), (3, 7));
    let mut dormant = 0;
    for number in 1..=10 {
        let read = story.read(number).await;
        dormant += u32::from(read.state == State::Dormant && read.generation == Generation(0));
    }
    assert_eq!(dormant, 7, "who found no slot is as before");
}

/// A limit of zero switches waking off.
pub async fn a_client_without_slots_wakes_nothing(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 0).await;
    assert_eq!(
        story.wake(1, dawn()).await,
        Err(TransitionFailed::NoSlot { limit: 0 })
    );
}

/// A busy client never keeps another one waiting.
pub async fn slots_of_one_client_are_not_those_of_another(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    let mia = Story {
        client: client("mia"),
        ..story
    };
    mia.create(1).await;
    mia.wake(1, dawn()).await.expect("her own slot");
}

/// At once.
pub async fn a_session_that_sleeps_gives_its_slot_back(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    story.serve(1, dawn()).await;
    assert_eq!(
        story.wake(2, dawn()).await,
        Err(TransitionFailed::NoSlot { limit: 1 })
    );
    story
        .take(
            1,
            Generation(1),
            &Transition::Drain {
                seen_activity: None,
            },
            dawn(),
        )
        .await
        .expect("ready");
    assert_eq!(
        story.wake(2, dawn()).await,
        Err(TransitionFailed::NoSlot { limit: 1 }),
        "it is held while draining"
    );
    story
        .take(
            1,
            Generation(1),
            &Transition::Sleep { parked: Vec::new() },
            dawn(),
        )
        .await
        .expect("draining");
    story.wake(2, dawn()).await.expect("given back");
    assert_eq!(
        story.wake(1, dawn()).await,
        Err(TransitionFailed::NoSlot { limit: 1 })
    );
}

/// At once.
pub async fn a_session_that_fails_gives_its_slot_back(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    story
        .take(1, Generation(1), &fail(), dawn())
        .await
        .expect("waking");
    story.wake(2, dawn()).await.expect("given back");
}

/// An environment that died without a word does not keep its slot for ever.
pub async fn a_slot_is_free_when_the_lease_of_its_holder_is_over(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    let last_moment = dawn().plus(LEASE);
    assert_eq!(
        story.wake(2, last_moment).await,
        Err(TransitionFailed::NoSlot { limit: 1 })
    );
    story
        .wake(2, last_moment.plus(Duration::from_millis(1)))
        .await
        .expect("nobody holds it");
}

/// It does not compete with itself.
pub async fn a_session_that_is_woken_again_keeps_its_slot(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    let later = dawn().plus(LEASE * 2);
    story.wake(1, later).await.expect("its own slot");
    assert_eq!(
        story.wake(2, later).await,
        Err(TransitionFailed::NoSlot { limit: 1 })
    );
    story
        .take(1, Generation(2), &fail(), later)
        .await
        .expect("waking");
    story
        .wake(2, later)
        .await
        .expect("it held one slot, not two");
}

/// Else there would be more environments than slots. It can still say that it failed.
pub async fn whoever_lost_its_slot_cannot_go_on(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    let ready = story.serve(1, dawn()).await;
    let later = dawn().plus(LEASE * 2);
    story.wake(2, later).await.expect("nobody holds it");
    let answer = story.take(1, Generation(1), &renew(later), later).await;
    assert_eq!(answer, Err(TransitionFailed::NoSlot { limit: 1 }));
    assert_eq!(story.read(1).await, ready);
    story
        .take(1, Generation(1), &fail(), later)
        .await
        .expect("ready");
    let answer = story.wake(1, later).await;
    assert_eq!(
        answer,
        Err(TransitionFailed::NoSlot { limit: 1 }),
        "it gave back nobody's slot but its own"
    );
}

/// As of a laptop that was closed for an hour.
pub async fn a_late_renewal_stands_while_nobody_took_the_slot(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    story.wake(1, dawn()).await.expect("a free slot");
    story.serve(1, dawn()).await;
    let later = dawn().plus(LEASE * 2);
    story
        .take(1, Generation(1), &renew(later), later)
        .await
        .expect("its slot is still its own");
    assert_eq!(
        story.wake(2, later).await,
        Err(TransitionFailed::NoSlot { limit: 1 })
    );
}

/// However close to each other they come: never two environments in one slot.
pub async fn of_a_late_renewal_and_a_wake_for_its_slot_one_wins(under_test: &dyn StoreUnderTest) {
    const ROUNDS: u64 = 12;
    let story = Arc::new(Story::begin(under_test, 1).await);
    let mut now = dawn();
    for round in 0..ROUNDS {
        let (late, wakes) = (story.wake(1, now).await.expect("a free slot"), 2);
        now = now.plus(LEASE * 2);
        let renewal = {
            let (story, acting) = (Arc::clone(&story), late.generation);
            async move { story.take(1, acting, &renew(now), now).await }
        };
        let waking = {
            let story = Arc::clone(&story);
            async move { story.wake(wakes, now).await }
        };
        let mut both = JoinSet::new();
        both.spawn(renewal);
        both.spawn(waking);
        let won = both
            .join_all()
            .await
            .into_iter()
            .filter(|answer| match answer {
                Ok(_) => true,
                Err(TransitionFailed::NoSlot { limit: 1 }) => false,
                Err(other) => panic!("{other}"),
            })
            .count();
        assert_eq!(won, 1, "in round {round}");
        // Whoever won makes room for the next round.
        for number in [1, wakes] {
            let read = story.read(number).await;
            if read.state == State::Waking {
                story
                    .take(number, read.generation, &fail(), now)
                    .await
                    .expect("waking");
            }
        }
    }
}

/// The next message of the conversation begins anew.
pub async fn a_thread_whose_session_is_removed_can_have_another(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let old = story.read(1).await;
    assert_eq!(story.remove(&old).await, Removed::Gone);
    assert_eq!(
        story.sessions.get(&old.session_id).await.expect("get"),
        None
    );
    let found = story.sessions.find(&story.client, &old.thread_id).await;
    assert_eq!(found.expect("find"), None);
    let new = Session {
        thread_id: old.thread_id.clone(),
        ..session(&story.client, 11)
    };
    let created = story.sessions.create(&new).await.expect("create");
    assert_eq!(created, Created::New);
    // Repeated, as after a reply that was lost.
    assert_eq!(story.remove(&old).await, Removed::Gone);
    let found = story.sessions.find(&story.client, &old.thread_id).await;
    assert_eq!(found.expect("find"), Some(new.session_id));
}

/// By whoever opened the page while it was looked at.
pub async fn a_session_that_was_woken_meanwhile_is_not_removed(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let seen = story.read(1).await;
    story.wake(1, dawn()).await.expect("dormant");
    let failed = story.take(1, Generation(1), &fail(), dawn()).await;
    let failed = failed.expect("waking");
    assert_eq!(story.remove(&seen).await, Removed::Used);
    assert_eq!(story.read(1).await, failed);
    assert_eq!(story.remove(&failed).await, Removed::Gone);
}

/// Even if whoever wants it removed knows that.
pub async fn a_session_that_somebody_acts_for_is_not_removed(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let awake = story.wake(1, Timestamp::now()).await.expect("dormant");
    assert_eq!(story.remove(&awake).await, Removed::Used);
    assert_eq!(story.read(1).await, awake);
}

/// Its environment died without a word.
pub async fn a_session_that_was_abandoned_is_removed_with_its_slot(
    under_test: &dyn StoreUnderTest,
) {
    let story = Story::begin(under_test, 1).await;
    let long_ago = Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 3_600_000);
    let abandoned = story.wake(1, long_ago).await.expect("dormant");
    assert_eq!(story.remove(&abandoned).await, Removed::Gone);
    // In the time of its lease: nothing but its removal has made the slot free.
    story.wake(2, long_ago).await.expect("nobody holds it");
}

/// As after DynamoDB removed a session that had expired.
pub async fn what_is_left_of_a_session_that_is_gone_frees_its_thread(
    under_test: &dyn StoreUnderTest,
) {
    let story = Story::begin(under_test, 1).await;
    let gone = story.read(1).await;
    // The suite cannot remove one half by itself: that of another thread has the same id, and no row of this thread.
    let other_thread = Session {
        thread_id: thread("another"),
        ..gone.clone()
    };
    assert_eq!(story.remove(&other_thread).await, Removed::Gone);
    assert_eq!(
        story.sessions.get(&gone.session_id).await.expect("get"),
        None
    );
    let found = story.sessions.find(&story.client, &gone.thread_id).await;
    assert_eq!(found.expect("find"), Some(gone.session_id.clone()));
    assert_eq!(story.remove(&gone).await, Removed::Gone);
    let found = story.sessions.find(&story.client, &gone.thread_id).await;
    assert_eq!(found.expect("find"), None);
}

/// Whatever is said about it.
pub async fn a_thread_of_another_session_stays(under_test: &dyn StoreUnderTest) {
    let story = Story::begin(under_test, 1).await;
    let wrong = Session {
        thread_id: thread("thread-2"),
        ..session(&story.client, 11)
    };
    assert_eq!(story.remove(&wrong).await, Removed::Gone);
    let found = story
        .sessions
        .find(&story.client, &thread("thread-2"))
        .await;
    assert_eq!(found.expect("find"), Some(story.id(2)));
    assert_eq!(story.read(2).await.session_id, story.id(2));
}

/// However close to each other they come: never an environment without a session.
pub async fn of_a_removal_and_a_wake_one_wins(under_test: &dyn StoreUnderTest) {
    let story = Arc::new(Story::begin(under_test, 10).await);
    for number in 1..=10 {
        let seen = story.read(number).await;
        let mut both = JoinSet::new();
        let removing = Arc::clone(&story);
        both.spawn(async move { removing.remove(&seen).await == Removed::Gone });
        let waking = Arc::clone(&story);
        both.spawn(async move {
            let now = Timestamp::now();
            match waking
                .take(number, Generation(0), &wake(Generation(0), now), now)
                .await
            {
                Ok(_) => true,
                Err(TransitionFailed::NoSuchSession) => false,
                Err(other) => panic!("{other}"),
            }
        });
        let won = both.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "of session {number}");
    }
}

/// And another one is another one.
pub async fn what_may_be_used_once_is_used_once(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let until = Timestamp::now().plus(LEASE);
    assert!(sessions.spend("one", until).await.expect("spend"));
    assert!(!sessions.spend("one", until).await.expect("spend"));
    assert!(sessions.spend("two", until).await.expect("spend"));
    let listed = sessions.list(&client("amelia")).await.expect("list");
    assert_eq!(listed, [], "a nonce is no session");
}

/// A link that was clicked in twenty places makes one session.
pub async fn of_many_who_spend_one_nonce_one_is_told_so(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let until = Timestamp::now().plus(LEASE);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let sessions = Arc::clone(&sessions);
        callers.spawn(async move { sessions.spend("one", until).await.expect("spend") });
    }
    let won = callers.join_all().await.into_iter().filter(|won| *won);
    assert_eq!(won.count(), 1);
}

/// With what is wrong with it, and without repeating it.
pub async fn a_nonce_that_is_too_long_is_refused(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    let until = Timestamp::now().plus(LEASE);
    let longest = "n".repeat(NONCE_MAX_BYTES);
    assert!(sessions.spend(&longest, until).await.expect("spend"));
    let refused = sessions.spend(&format!("{longest}n"), until).await;
    let refused = refused.expect_err("too long");
    assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "spend a nonce: it has 257 bytes: at most 256 are taken"
    );
}

/// Nobody writes.
pub async fn whoever_waits_for_a_change_does_not_wait_for_ever(under_test: &dyn StoreUnderTest) {
    let sessions = under_test.fresh().await.sessions;
    for _ in 0..3 {
        let patience = Duration::from_millis(20);
        tokio::time::timeout(LEASE, sessions.changed(patience))
            .await
            .expect("it has a patience");
    }
}

/// How long every lease of the suite is.
const LEASE: Duration = Duration::from_secs(30);

/// Ten dormant sessions of one client.
struct Story {
    sessions: Arc<dyn Sessions>,
    client: ClientId,
    slots: u32,
}

impl Story {
    async fn begin(under_test: &dyn StoreUnderTest, slots: u32) -> Self {
        let story = Self {
            sessions: under_test.fresh().await.sessions,
            client: client("amelia"),
            slots,
        };
        for number in 1..=10 {
            story.create(number).await;
        }
        story
    }

    fn id(&self, number: u8) -> SessionId {
        session_id(&self.client, number)
    }

    async fn create(&self, number: u8) {
        let created = self
            .sessions
            .create(&session(&self.client, number))
            .await
            .expect("create");
        assert_eq!(created, Created::New);
    }

    async fn remove(&self, session: &Session) -> Removed {
        self.sessions.remove(session).await.expect("remove")
    }

    async fn read(&self, number: u8) -> Session {
        self.sessions
            .get(&self.id(number))
            .await
            .expect("get")
            .expect("created at the beginning")
    }

    async fn take(
        &self,
        number: u8,
        caller: Generation,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<Session, TransitionFailed> {
        self.sessions
            .transition(&self.id(number), caller, transition, self.slots, now)
            .await
            .expect("transition")
    }

    /// Wakes a session as somebody does who has just read it.
    async fn wake(&self, number: u8, now: Timestamp) -> Result<Session, TransitionFailed> {
        let seen = self
            .sessions
            .get(&self.id(number))
            .await
            .expect("get")
            .map_or(Generation(0), |read| read.generation);
        self.take(number, seen, &wake(seen, now), now).await
    }

    /// Brings a waking session of generation 1 to ready.
    async fn serve(&self, number: u8, now: Timestamp) -> Session {
        self.take(number, Generation(1), &claim(now), now)
            .await
            .expect("waking");
        let lease_until = now.plus(LEASE);
        let register = Transition::Register {
            ip: "10.0.0.1".to_owned(),
            port: 8080,
            site: SiteHealth::Ok,
            isolation: None,
            lease_until,
        };
        self.take(number, Generation(1), &register, now)
            .await
            .expect("claimed")
    }
}

fn wake(seen: Generation, now: Timestamp) -> Transition {
    Transition::Wake {
        seen,
        proof_key: proof_key(),
        lease_until: now.plus(LEASE),
    }
}

fn claim(now: Timestamp) -> Transition {
    Transition::Claim {
        task: "task-1".to_owned(),
        lease_until: now.plus(LEASE),
    }
}

fn renew(now: Timestamp) -> Transition {
    let lease_until = now.plus(LEASE);
    Transition::Renew {
        lease_until,
        site: SiteHealth::Ok,
        last_activity_at: None,
        awake_because: None,
    }
}

fn fail() -> Transition {
    let message = "It did not start.".to_owned();
    Transition::Fail {
        failure: Failure {
            code: "start_failed".to_owned(),
            message,
            retryable: true,
        },
    }
}
