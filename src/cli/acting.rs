//! What commands about objects have in common: asking for one, for many, changing one, and saying what came of it.

use clap::{Args, Subcommand};
use prost::Name;
use tonic::{Request, Response, Status};

use super::Surroundings;
use super::calling::Calling;
use super::client::Client;
use super::failure::Failure;
use super::flags::Trial;
use super::output::{Column, Output};
use super::paging::{Page, Paged, Wanted};

/// A command about objects of one kind, and which server to ask.
#[derive(Debug, Args)]
pub struct About<C: Subcommand> {
    #[command(flatten)]
    calling: Calling,

    #[command(subcommand)]
    command: C,
}

/// What can be done with objects of one kind.
pub trait Deed: Subcommand {
    /// Asks whether to go on. Before the root key is asked for: who declines needs none.
    fn ask(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Does it.
    fn run(self, acting: &Acting<'_>) -> impl Future<Output = Result<(), Failure>>;
}

impl<C: Deed> About<C> {
    /// Does it.
    pub async fn run(self, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
        let Self { calling, command } = self;
        command.ask()?;
        let acting = Acting { output: calling.output(), client: calling.client(surroundings).await? };
        command.run(&acting).await
    }
}

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

    /// Shows the objects in a field of the answers, page after page, as a table of these columns.
    pub async fn list<Q: Clone + Name, A: Name + Paged>(
        &self,
        (field, columns): (&str, &[Column]),
        wanted: Wanted,
        request: impl Fn(Page) -> Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(), Failure> {
        let answer = wanted.gather(async |page| self.client.read(request(page), &call).await).await?;
        self.output.list(&answer, field, columns)
    }

    /// Changes something, or tries to, and hands out the answer.
    pub async fn answer<Q: Clone + Name, A: Name>(
        &self,
        trial: Trial,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let answer = self.client.change(request, call).await?;
        trial.remind(self.output);
        Ok(answer)
    }

    /// Changes an object, or tries to, and shows it as it is in a field of the answer.
    pub async fn change<Q: Clone + Name, A: Name>(
        &self,
        field: &str,
        trial: Trial,
        request: Q,
        call: impl AsyncFn(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(), Failure> {
        let answer = self.answer(trial, request, call).await?;
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
