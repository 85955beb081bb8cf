//! How services are updated.
use super::SECOND;
use crate::{config::Config, dice::Dice};
use shoal_model::docker;

/// How the service is updated; in seeds that are not plain also what follows on failures, and the way back.
pub(super) fn set_update(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    spec.update_config = Some(update_config(config, dice));
    if config.broad.is_some() {
        spec.rollback_config = dice.chance(600).then(|| rollback_config(dice));
    }
}

fn ratio(dice: &mut Dice) -> Option<f64> {
    [None, Some(0.0), Some(0.3), Some(0.5), Some(1.0)][dice.index(5)]
}

fn monitor(dice: &mut Dice) -> Option<i64> {
    dice.chance(500).then(|| dice.between(0, 30) as i64 * SECOND)
}

pub(super) fn rollback_config(dice: &mut Dice) -> docker::ServiceSpecRollbackConfig {
    use docker::{
        ServiceSpecRollbackConfigFailureActionEnum as Action,
        ServiceSpecRollbackConfigOrderEnum as Order,
    };
    docker::ServiceSpecRollbackConfig {
        parallelism: dice.chance(800).then(|| dice.between(0, 3) as i64),
        delay: dice.chance(300).then(|| dice.between(1, 10) as i64 * SECOND),
        failure_action: Some(if dice.chance(500) { Action::CONTINUE } else { Action::PAUSE }),
        monitor: monitor(dice),
        max_failure_ratio: ratio(dice),
        order: Some(if dice.chance(400) { Order::START_FIRST } else { Order::STOP_FIRST }),
    }
}

pub(super) fn update_config(config: &Config, dice: &mut Dice) -> docker::ServiceSpecUpdateConfig {
    use docker::{
        ServiceSpecUpdateConfigFailureActionEnum as Action,
        ServiceSpecUpdateConfigOrderEnum as Order,
    };
    let mut update = docker::ServiceSpecUpdateConfig {
        parallelism: Some(dice.between(0, 3) as i64),
        delay: dice.chance(300).then(|| dice.between(1, 10) as i64 * SECOND),
        failure_action: Some(if dice.chance(500) { Action::CONTINUE } else { Action::PAUSE }),
        max_failure_ratio: dice.chance(300).then_some(0.3),
        order: Some(if dice.chance(400) { Order::START_FIRST } else { Order::STOP_FIRST }),
        ..Default::default()
    };
    if config.broad.is_some() {
        if dice.chance(400) {
            update.failure_action = Some(Action::ROLLBACK);
        }
        update.max_failure_ratio = ratio(dice);
        update.monitor = monitor(dice);
    }
    update
}
