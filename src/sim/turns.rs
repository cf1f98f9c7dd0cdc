//! What is large leaves turns to what is small.

use std::{cell::Cell, net::Ipv4Addr, rc::Rc};

use kafka_protocol::messages::{
    ProduceRequest, TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use crate::{
    api::{self, Identity, Session},
    base::ProducerId,
    io::Io,
    protocol::compression::Compression,
    sim::{
        bench::Bench,
        broker::NODE,
        member::text,
        records::{self, Value},
        wire,
    },
};

const CLIENTS: u32 = 8;
const PARTITION_BYTES: usize = 400_000;

fn request(partition: u32) -> ProduceRequest {
    let values = (0..2000).map(|number| Value { writer: 0, number });
    let batch = records::batch(values, (ProducerId::NONE, -1), Compression::None);
    assert!((PARTITION_BYTES..1 << 20).contains(&batch.len()), "{} bytes", batch.len());
    let data = PartitionProduceData::default().with_index(partition as i32).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(TopicName(text("t"))).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

#[test]
fn between_two_large_batches_everything_else_has_its_turn() {
    let bench = Bench::start(1, 1);
    bench.topic("t", CLIENTS as i32);
    let (begun, most, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let witness = {
        let (begun, most, over) = (begun.clone(), most.clone(), over.clone());
        |io: Io| async move {
            while !over.get() {
                let before = begun.get();
                io.clock.yield_now().await;
                most.set(most.get().max(begun.get() - before));
            }
        }
    };
    bench.sim.spawn_on(NODE, 0, witness);
    // All have arrived, and their tasks are ready to run one after the other.
    for client in 0..CLIENTS {
        let context = bench.life.context(0).expect("it serves");
        let frame = wire::frame(9, client as i32, &request(client));
        let begun = begun.clone();
        bench.sim.spawn_on(NODE, 0, move |_| async move {
            let session = Rc::new(Session::new(Ipv4Addr::LOCALHOST.into(), 0, Identity::default()));
            let answer = api::handle(&context, &session, frame).await;
            begun.set(begun.get() + 1);
            drop(answer.await);
        });
    }
    while begun.get() < CLIENTS {
        bench.sim.run_steps(10);
    }
    over.set(true);
    assert!(most.get() <= 2, "{} at once", most.get());
}
