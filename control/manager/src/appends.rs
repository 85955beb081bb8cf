//! Log entries to another manager, over a stream that stays open: a call of its own for each would cost
//! both sides more than the entries do.

use shoal_rpc::{RaftAppend, RaftAppended, raft_appended::Answer, raft_client::RaftClient};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::peers::MAX_RAFT_MESSAGE;

/// The stream over one connection, once it is open.
#[derive(Default)]
pub(crate) struct Appends(Mutex<Option<Stream>>);

struct Stream {
    requests: mpsc::Sender<RaftAppend>,
    answers: Streaming<RaftAppended>,
}

/// What became of a message.
pub(crate) enum Appended {
    /// The answer, or why there is none.
    Answered(Answer),
    /// Another message is under way, and its answer may take long.
    Busy(Vec<u8>),
}

impl Appends {
    pub(crate) async fn call(&self, channel: Channel, body: Vec<u8>) -> Result<Appended, Status> {
        let Ok(mut open) = self.0.try_lock() else { return Ok(Appended::Busy(body)) };
        // Taken out: when this future is dropped an answer is on its way that is nobody's any more.
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => Stream::open(channel).await?,
        };
        let answer = stream.call(body).await?;
        *open = Some(stream);
        Ok(Appended::Answered(answer))
    }
}

impl Stream {
    async fn open(channel: Channel) -> Result<Stream, Status> {
        let (requests, waiting) = mpsc::channel(1);
        let client = RaftClient::new(channel).max_decoding_message_size(MAX_RAFT_MESSAGE);
        let mut client = client.max_encoding_message_size(MAX_RAFT_MESSAGE);
        let answers = client.appends(ReceiverStream::new(waiting)).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    async fn call(&mut self, body: Vec<u8>) -> Result<Answer, Status> {
        // When nobody takes it, the answers say why.
        let _ = self.requests.send(RaftAppend { body }).await;
        let ended = || Status::unavailable("the stream of log entries has ended");
        let answer = self.answers.message().await?.ok_or_else(ended)?;
        answer.answer.ok_or_else(|| Status::internal("an answer without content"))
    }
}
