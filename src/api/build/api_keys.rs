//! API keys and usage plans, and whether anybody has a use for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Building;
use crate::api::file::{self, File};
use crate::model::client::StageKey;
use crate::model::periods::{Period, Quota};
use crate::model::settings::nearest;
use crate::steps::throttles::api_keys::{ApiKey, ApiKeys, Duplicate, KeyDigest, Plan};

impl Building<'_> {
    pub(super) fn api_keys(&mut self, file: &File) -> ApiKeys {
        let stages: Vec<StageKey> = file
            .apis
            .iter()
            .flat_map(|api| {
                let default = file::Stage::absent_in(&api.value);
                let names: Vec<String> =
                    super::stages_of(&api.value, &default).into_iter().map(|(name, _)| name.to_owned()).collect();
                names.into_iter().map(|stage| StageKey { api: api.name.as_str().into(), stage: stage.as_str().into() })
            })
            .collect();
        let mut plans: HashMap<&str, Option<Vec<StageKey>>> = HashMap::new();
        for entry in &file.usage_plans {
            plans.insert(&entry.name, self.plan_stages(&entry.value, &stages));
        }
        let mut all = Vec::new();
        for entry in &file.api_keys {
            let Some(digest) = digest(&entry.value) else { continue };
            let id: Arc<str> = entry.name.as_str().into();
            let plan = self.plan(file, &id, entry, &plans);
            all.push(ApiKey { id, digest, enabled: entry.value.enabled, plan });
        }
        self.check_plans(file);
        let refuse = |duplicate: Duplicate| {
            let place = file.api_keys.get(&duplicate.second).map(|entry| entry.place.clone());
            self.problems.problem(&place.unwrap_or_default(), duplicate.to_string());
        };
        ApiKeys::new(all).map_err(refuse).unwrap_or_default()
    }

    fn plan(
        &mut self,
        file: &File,
        id: &Arc<str>,
        entry: &crate::model::settings::Named<file::ApiKey>,
        plans: &HashMap<&str, Option<Vec<StageKey>>>,
    ) -> Option<Plan> {
        let Some(named) = &entry.value.usage_plan else {
            let found = format!("the API key `{id}` opens nothing, because it is on no usage plan");
            self.problems.warning_with_help(&entry.place, found, "add `usage_plan`");
            return None;
        };
        let Some(written) = file.usage_plans.get(&named.value) else {
            if !named.unresolved && !file.usage_plans.has(&named.value) {
                let found = format!("there is no usage plan `{}`", named.value);
                let help = match nearest(&named.value, file.usage_plans.names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "add it to `[usage_plans.<name>]`".to_owned(),
                };
                self.problems.problem_with_help(&named.place, found, help);
            }
            return None;
        };
        let name: Arc<str> = written.name.as_str().into();
        let throttle = written.value.throttle();
        Some(Plan {
            throttle: self.bucket(&format!("key {id:?} {name:?}"), throttle.as_ref()),
            quota: quota(&written.value),
            stages: plans.get(&*name).cloned().flatten(),
            meter: self.kept.meters.of(id, &name),
            name,
        })
    }

    fn plan_stages(&mut self, plan: &file::UsagePlan, stages: &[StageKey]) -> Option<Vec<StageKey>> {
        let written = plan.stages.as_ref()?;
        let shown: Vec<String> = stages.iter().map(|key| format!("{}/{}", key.api, key.stage)).collect();
        let mut named = Vec::new();
        for text in written.iter().filter(|text| !text.unresolved) {
            match shown.iter().position(|shown| *shown == text.value) {
                Some(at) => named.push(stages[at].clone()),
                None => {
                    let found = format!("there is no stage `{}`", text.value);
                    let help = match nearest(&text.value, shown.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "write it like `<api>/<stage>`".to_owned(),
                    };
                    self.problems.problem_with_help(&text.place, found, help);
                }
            }
        }
        Some(named)
    }

    /// Plans that no key is on, and keys that no route asks for.
    fn check_plans(&mut self, file: &File) {
        let is_used = |name: &str| {
            file.api_keys.iter().any(|key| key.value.usage_plan.as_ref().is_some_and(|plan| plan.value == name))
        };
        for plan in file.usage_plans.iter().filter(|plan| !is_used(&plan.name)) {
            let found = format!("no API key is on the usage plan `{}`", plan.name);
            let help = format!("write `usage_plan = \"{}\"` in one of `[api_keys.<name>]`", plan.name);
            self.problems.warning_with_help(&plan.place, found, help);
        }
        let wants = |route: &crate::model::settings::Named<file::Route>| route.value.api_key_required;
        let is_asked = file.apis.iter().any(|api| api.value.routes.iter().any(wants));
        if let Some(route) = file.apis.iter().flat_map(|api| &api.value.routes).find(|route| wants(route))
            && file.api_keys.is_empty()
        {
            let found = "this route asks for an API key, and there is none";
            self.problems.warning_with_help(&route.place, found, "add `[api_keys.<name>]` and `[usage_plans.<name>]`");
        }
        if let Some(first) = file.api_keys.iter().next().filter(|_| !is_asked) {
            let found = "no route asks for an API key";
            self.problems.warning_with_help(&first.place, found, "write `api_key_required = true` in a route");
        }
    }
}

pub(super) fn quotas(file: &File) -> BTreeMap<String, Quota> {
    file.usage_plans.iter().filter_map(|plan| Some((plan.name.clone(), quota(&plan.value)?))).collect()
}

fn quota(plan: &file::UsagePlan) -> Option<Quota> {
    let quota = plan.quota.as_ref()?;
    let period = match quota.period {
        file::Period::Day => Period::Day,
        file::Period::Week => Period::Week,
        file::Period::Month => Period::Month,
    };
    Some(Quota { limit: quota.limit.0.into(), period })
}

/// `None` if it hangs on a variable that is allowed to be unset.
fn digest(key: &file::ApiKey) -> Option<KeyDigest> {
    match (&key.value, &key.sha256) {
        (Some(value), _) => (!value.unresolved).then(|| KeyDigest::of(value.reveal())),
        (None, Some(sha256)) => KeyDigest::parse(&sha256.value),
        (None, None) => None,
    }
}
