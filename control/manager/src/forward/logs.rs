//! Logs of tasks as they are asked for and told between managers.

use shoal_model::{LogLine, LogOptions, Timestamp};
use shoal_rpc::{ForwardedLine, LogsRequest};

pub(super) fn request(tasks: Vec<String>, options: LogOptions) -> LogsRequest {
    LogsRequest {
        tasks,
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
        tail: options.tail.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        since: options.since.map_or(0, |t| t.0),
    }
}

pub(super) fn options(request: &LogsRequest) -> LogOptions {
    LogOptions {
        stdout: request.stdout,
        stderr: request.stderr,
        follow: request.follow,
        tail: u64::try_from(request.tail).ok(),
        since: (request.since > 0).then_some(Timestamp(request.since)),
    }
}

pub(super) fn forwarded(line: LogLine) -> ForwardedLine {
    ForwardedLine {
        node_id: line.node_id,
        line: Some(shoal_rpc::LogLine {
            task_id: line.task_id,
            stderr: line.stderr,
            time: line.time.0,
            line: line.line,
        }),
    }
}

pub(super) fn line(forwarded: ForwardedLine) -> Option<LogLine> {
    let line = forwarded.line?;
    Some(LogLine {
        task_id: line.task_id,
        node_id: forwarded.node_id,
        stderr: line.stderr,
        time: Timestamp(line.time),
        line: line.line,
    })
}
