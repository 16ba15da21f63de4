//! What commands about objects have in common: asking for one, changing one, and saying what came of it.

use prost::Name;
use tonic::{Request, Response, Status};

use super::client::Client;
use super::failure::Failure;
use super::flags::Trial;
use super::output::Output;

/// Somebody with a client, and where the answers go.
pub struct Acting<'a> {
    pub client: Client<'a>,
    pub output: Output,
}

impl Acting<'_> {
    /// Shows the object in a field of the answer.
    pub async fn show<Q: Clone + Name, A: Name>(
        &self,
        field: &str,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(), Failure> {
        let answer = self.client.read(request, call).await?;
        self.output.object(&answer, field)
    }

    /// Changes an object, or tries to, and shows it as it is in a field of the answer.
    pub async fn change<Q: Clone + Name, A: Name>(
        &self,
        field: &str,
        trial: Trial,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(), Failure> {
        let answer = self.client.change(request, call).await?;
        trial.remind(self.output);
        self.output.object(&answer, field)
    }

    /// Changes something that there is nothing to show of but what a trial tells, and says what was done.
    pub async fn finish<Q: Clone + Name, A: Name>(
        &self,
        done: &str,
        trial: Trial,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(), Failure> {
        let answer = self.client.change(request, call).await?;
        self.output.whole(&answer)?;
        trial.tell(self.output, done);
        Ok(())
    }
}
