//! A request over many partitions: what is asked of their owners, and where in the answer each outcome goes.

/// An answer in the making, with a `Topic` for each topic of the request; some of its partitions are still to be asked for.
pub(super) struct Scatter<Ask, Topic> {
    asked: Vec<Ask>,
    places: Places<Topic>,
}

/// The answer, and where in it the outcomes go, in the order asked.
pub(super) struct Places<Topic> {
    topics: Vec<Topic>,
    /// Topic and partition, as places in the answer.
    places: Vec<(usize, usize)>,
}

impl<Ask, Topic> Scatter<Ask, Topic> {
    /// An answer about so many topics.
    pub fn new(topics: usize) -> Self {
        Self { asked: Vec::new(), places: Places { topics: Vec::with_capacity(topics), places: Vec::new() } }
    }

    /// Takes the next partition of the topic that [`topic`](Self::topic) will take: to be asked for, or refused right away.
    pub fn partition<Answer, Refusal>(
        &mut self,
        partitions: &mut Vec<Answer>,
        mut answer: Answer,
        ask: Result<Ask, Refusal>,
        refuse: impl FnOnce(&mut Answer, Refusal),
    ) {
        match ask {
            Ok(ask) => {
                self.places.places.push((self.places.topics.len(), partitions.len()));
                self.asked.push(ask);
            }
            Err(refusal) => refuse(&mut answer, refusal),
        }
        partitions.push(answer);
    }

    /// Takes a topic with its partitions.
    pub fn topic(&mut self, topic: Topic) {
        self.places.topics.push(topic);
    }

    /// What to ask, in order, and where the outcomes go.
    pub fn ask(self) -> (Vec<Ask>, Places<Topic>) {
        (self.asked, self.places)
    }
}

impl<Topic> Places<Topic> {
    /// Fills in an outcome for everything that was asked.
    ///
    /// # Panics
    /// If there are fewer or more: a partition without an outcome would be answered as if all were well.
    pub fn gather<Answer, Outcome>(
        mut self,
        outcomes: Vec<Outcome>,
        partitions: impl Fn(&mut Topic) -> &mut Vec<Answer>,
        mut fill: impl FnMut(&mut Answer, Outcome),
    ) -> Vec<Topic> {
        assert_eq!(outcomes.len(), self.places.len(), "one outcome for each partition that was asked");
        for ((topic, partition), outcome) in self.places.into_iter().zip(outcomes) {
            fill(&mut partitions(&mut self.topics[topic])[partition], outcome);
        }
        self.topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_go_where_they_were_asked_and_refusals_stay() {
        let mut scatter = Scatter::new(2);
        for topic in [[Ok(1), Err("no"), Ok(2)], [Err("gone"), Ok(3), Err("no")]] {
            let mut partitions = Vec::new();
            for ask in topic {
                scatter.partition(&mut partitions, String::new(), ask, |answer, why| answer.push_str(why));
            }
            scatter.topic(partitions);
        }
        let (asked, places) = scatter.ask();
        assert_eq!(asked, [1, 2, 3]);
        let topics = places.gather(asked, |topic| topic, |answer, ask| *answer = format!("did {ask}"));
        assert_eq!(topics, [["did 1", "no", "did 2"], ["gone", "did 3", "no"]]);
    }

    #[test]
    #[should_panic(expected = "one outcome")]
    fn a_missing_outcome_is_no_success() {
        let mut scatter: Scatter<i32, Vec<i32>> = Scatter::new(1);
        let mut partitions = Vec::new();
        scatter.partition(&mut partitions, 0, Ok::<_, ()>(7), |_, ()| ());
        scatter.topic(partitions);
        let (_, places) = scatter.ask();
        places.gather(Vec::<i32>::new(), |topic| topic, |_, _| ());
    }
}
