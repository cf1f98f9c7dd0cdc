//! Questions that the rooms below do not know: one file each is all that they take.

use uuid::Uuid;

use crate::{
    base::ErrorCode,
    controller::{
        Controller,
        asks::{ControlAsk, Decision, EnsureTopic},
    },
    sim::bench::Bench,
};

/// A topic with a name made of a number, and how many topics there are then. Nobody has the number 0.
struct NumberedTopic(u32);

impl ControlAsk for NumberedTopic {
    type Answer = usize;

    fn decide(
        self,
        controller: &mut Controller,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Decision<usize>, ErrorCode> {
        if self.0 == 0 {
            return Err(ErrorCode::InvalidRequest);
        }
        let (records, _) = EnsureTopic(format!("topic-{}", self.0)).decide(controller, random)?;
        Ok((records, controller.image().topics().count()))
    }
}

#[test]
fn the_controller_is_asked_what_it_was_not_made_for() {
    let bench = Bench::start(11, 3);
    let ask = |core, number| bench.ask(core, move |router| async move { router.control(NumberedTopic(number)).await });
    for core in 0..3 {
        assert_eq!(ask(core, 0), Err(ErrorCode::InvalidRequest), "core {core}");
        assert_eq!(ask(core, 1 + core as u32), Ok(core + 1), "core {core}");
        assert_eq!(ask(core, 1), Ok(core + 1), "it is there: no record, and an answer");
    }
    for core in 0..3 {
        assert!(bench.router(core).image().topic("topic-3").is_some(), "every core has it");
    }
}
