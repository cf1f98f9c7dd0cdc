//! DescribeLogDirs (key 35), versions 1–4, as a toy: what one more request takes. It names a directory for each topic.

use std::rc::Rc;

use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, describe_log_dirs_response::DescribeLogDirsResult,
};

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
        table::{Memory, Row, alone},
    },
    protocol::guard::shapes,
};

throttled!(DescribeLogDirsResponse);

pub(crate) static ROW: Row = alone!(
    DescribeLogDirs,
    DescribeLogDirsRequest,
    &shapes::DESCRIBE_LOG_DIRS,
    Describe,
    Request,
    Memory { fixed: 4096, frame_times: 3 },
    handle
);

async fn handle(context: &Rc<Context>, call: Call<DescribeLogDirsRequest>) -> Outcome {
    let image = context.router.image();
    let view = call.view(&image);
    let directory = |topic: &str| DescribeLogDirsResult::default().with_log_dir(text(&format!("/toys/{topic}")));
    let directories = view.topics().map(|topic| directory(&topic.name));
    call.reply(DescribeLogDirsResponse::default().with_results(directories.collect()))
}
