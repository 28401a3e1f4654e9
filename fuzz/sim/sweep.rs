//! A crash at every moment of a piece of work: of a flush, a compaction, a change of the manifest and the rest of [`Phase`].
//!
//! 1. One run of the scenario without an end by force notes after which events the work was under way in one round.
//! 2. For each of these moments the same run is made again, up to there; then the power fails. What comes before is the same, as
//!    the seed is. Every await of the work, and of everything beside it, is among these moments.
//! 3. The run goes on as any: the node has to open, everything has to be there, and the files have to be whole.
//!
//! A rotation of the root key is cut off after 0, 1, 2 ... events until one is through.

use cairn_engine::phase::Phase;

use super::run::{Failure, run};
use super::scenario::{End, Scenario};
use super::summary::Summary;

impl Scenario {
    /// A small run in which there is work of this kind, and nothing else goes wrong.
    #[must_use]
    pub fn with_work(seed: u64, phase: Phase) -> Scenario {
        let base = match phase {
            Phase::Rebuild => Scenario::fleet(seed).with_small_engine(),
            _ => Scenario::only(seed, None),
        };
        let rounds = if phase == Phase::Rebuild { 3 } else { 2 };
        let sealed = matches!(phase, Phase::RootKey | Phase::TableKey);
        let backup = (phase == Phase::Backup).then_some(20_000);
        Scenario {
            rounds: vec![End::Close; rounds],
            rotations: vec![None; rounds],
            backups: [vec![backup], vec![None; rounds - 1]].concat(),
            looks: vec![false; rounds],
            encrypted: sealed,
            rekeys: phase == Phase::TableKey,
            ..base
        }
    }
}

/// Cuts the work off at every moment of the first round that has any; at `moments_max` of them, spread evenly, if there are
/// more. Answers how many there were, or nothing when the scenario has no such work.
///
/// # Errors
/// The first run that goes wrong.
pub fn sweep(scenario: &Scenario, phase: Phase, moments_max: usize) -> Result<Summary, Failure> {
    if phase == Phase::RootKey {
        return sweep_rotation(scenario, moments_max);
    }
    let noting = Scenario {
        notes_points: true,
        ..scenario.clone()
    };
    let mut points = run(noting, false)?.points.remove(&phase).unwrap_or_default();
    points.dedup();
    let round = points.first().map(|(round, _)| *round);
    points.retain(|(at, _)| Some(*at) == round);
    let mut total = Summary::default();
    let step = points.len().div_ceil(moments_max.max(1)).max(1);
    for (round, events) in points.into_iter().step_by(step) {
        let mut cut = scenario.clone();
        cut.rounds[round] = End::Crash(events);
        let survived = run(cut, false).map_err(|failure| Failure {
            why: format!("cut off after {events} events of round {round}: {}", failure.why),
            ..failure
        });
        total.add(&survived?);
    }
    Ok(total)
}

fn sweep_rotation(scenario: &Scenario, moments_max: usize) -> Result<Summary, Failure> {
    let mut total = Summary::default();
    for events in 0..moments_max as u64 {
        let mut cut = scenario.clone();
        cut.rotations[0] = Some(events);
        let cut = run(cut, false)?;
        let through = cut.rotations > 0;
        total.add(&cut);
        if through {
            break;
        }
    }
    Ok(total)
}
