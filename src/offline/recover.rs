//! `ostiary recover`: a new administrator for those who have lost theirs.

use crate::config::offline::Recover;
use crate::service::unserved::{Recovered, Unserved};
use crate::store::Engine as _;

use super::{Refusal, open, world};

/// Makes a root key in the operator's workspace that may do everything.
///
/// # Errors
/// Why not; then nothing has changed.
pub async fn recover(wanted: Recover) -> Result<Recovered, Refusal> {
    let Recover { lying, name } = wanted;
    let engine = open(&lying.data_dir)?;
    let world = world(&engine).await?;
    let recovered = Unserved::new(&engine, &world).recover(name).await;
    engine.close().await;
    Ok(recovered?)
}
