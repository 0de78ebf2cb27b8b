//! Making a campaign, changing its job, listing and deleting.

use std::sync::Arc;

use super::super::error::CampaignError;
use super::super::job::{Job, Problem};
use super::super::model::{Overrides, RECORD_VERSION, Record, State, keys};
use super::super::state::Action;
use super::{CAMPAIGNS_MAX, Campaigns, Entry, way};
use crate::store::Change;
use crate::types::{CampaignNo, Domain, Name};

/// A campaign that was made, or that was there with the same job.
#[derive(Clone, PartialEq, Debug)]
pub struct Created {
    /// Its record.
    pub record: Arc<Record>,
    /// Whether it was made now.
    pub new: bool,
}

/// Makes the changes that go into the batch that makes a campaign, once the id is known: the record of the idempotency key.
pub type Extra = Box<dyn FnOnce(&Name) -> Vec<Change> + Send>;

impl Campaigns {
    /// Makes a campaign. The same job under the same id again is the one that is there; another job is an error that names what differs.
    /// `Ok` means: on disk.
    pub async fn create(&self, tenant: Name, job: Job, by: String, extra: Extra) -> Result<Created, CampaignError> {
        let this = self.clone();
        self.detached(async move { this.create_now(tenant, job, by, extra).await }).await
    }

    async fn create_now(&self, tenant: Name, mut job: Job, by: String, extra: Extra) -> Result<Created, CampaignError> {
        let problems = self.problems(&tenant, &job);
        if !problems.is_empty() {
            return Err(CampaignError::Problems(problems));
        }
        let mut next = self.0.next.lock().await;
        if let Some(id) = &job.id
            && let Ok(entry) = self.entry(&tenant, id)
        {
            return self.same(&entry, &job).await;
        }
        if self.0.all.read().by_no.len() >= CAMPAIGNS_MAX {
            return Err(CampaignError::TooMany(format!("there are {CAMPAIGNS_MAX} campaigns: delete old ones")));
        }
        let no = CampaignNo(*next);
        let id = match job.id.clone() {
            Some(id) => id,
            None => self.free_id(&tenant, no)?,
        };
        job.id = Some(id.clone());
        let now = self.now();
        let record = Record {
            v: RECORD_VERSION,
            no,
            tenant: tenant.clone(),
            id: id.clone(),
            name: job.name.clone().unwrap_or_else(|| id.to_string()),
            state: State::Draft,
            reason: None,
            version: 1,
            hash: hex(&job.hash()),
            by,
            created: now,
            updated: now,
            started: None,
            due: None,
            ended: None,
            running_since: None,
            held_since: None,
            held_ms: 0,
            sweeping: false,
            rows: 0,
            forced: None,
            overrides: Overrides::default(),
            stop_base: None,
        };
        let after = next.checked_add(1).ok_or_else(|| CampaignError::TooMany("all numbers are used up".into()))?;
        let mut changes = vec![
            Change::PutState { key: keys::NEXT.to_vec(), value: after.to_string().into_bytes() },
            Change::PutState {
                key: keys::number(no),
                value: [tenant.as_str(), "\0", id.as_str()].concat().into_bytes(),
            },
            Change::PutState { key: keys::job(no, 1), value: job.to_json() },
        ];
        changes.extend(extra(&id));
        let entry = Entry::new(record);
        // Whatever becomes of the commit, the number is not given again: a batch that failed late may yet be on disk.
        *next = after;
        let record = self.commit(&entry, Record::clone(&entry.record()), changes).await?;
        self.0.all.write().insert(entry);
        self.stands(record.state, 1);
        Ok(Created { record, new: true })
    }

    async fn same(&self, entry: &Entry, job: &Job) -> Result<Created, CampaignError> {
        let record = entry.record();
        if record.hash == hex(&job.hash()) {
            return Ok(Created { record, new: false });
        }
        let mut differs = self.job(&record).await?.differences(job);
        if differs.is_empty() {
            differs.push("the job".into());
        }
        Err(CampaignError::Exists { id: record.id.to_string(), differs })
    }

    /// An id for a job without one: after its number, which is used once only; a user may have taken that name.
    fn free_id(&self, tenant: &Name, no: CampaignNo) -> Result<Name, CampaignError> {
        let names = [format!("c-{}", no.0), format!("c-{}-{}", no.0, self.now().as_secs())];
        let names = names.iter().filter_map(|text| Name::parse(text).ok());
        let mut free = names.filter(|id| self.entry(tenant, id).is_err());
        free.next()
            .ok_or_else(|| CampaignError::Invalid { field: "id".into(), reason: "give one: ours are taken".into() })
    }

    /// All that is wrong with a job for this tenant: what the job alone, the configuration and the templates show.
    pub fn problems(&self, tenant: &Name, job: &Job) -> Vec<Problem> {
        let mut out = job.problems();
        let config = self.parts().config.load();
        if let Some(tenant) = config.tenant(tenant) {
            let domain = job.from.mailbox.domain();
            let owned = |text: &String| text == "*" || Domain::parse(text).is_ok_and(|own| domain.is_within(&own));
            if !tenant.domains.iter().any(owned) {
                let fix = format!("it may send from {}", tenant.domains.join(", "));
                out.push(Problem::new("from", format!("{domain} does not belong to tenant {}", tenant.name)).fix(fix));
            }
        } else if !config.tenants.is_empty() {
            out.push(Problem::new("", format!("there is no tenant {tenant}")));
        }
        if let Some(pool) = job.pool.as_ref().filter(|pool| !config.pools.iter().any(|p| p.name == **pool)) {
            let known: Vec<&str> = config.pools.iter().map(|p| p.name.as_str()).collect();
            out.push(
                Problem::new("pool", format!("there is no pool {pool}")).fix(format!("known are {}", known.join(", "))),
            );
        }
        out.extend(self.parts().ports.content.problems(job));
        out
    }

    /// Gives a campaign another job; only before its start. The same job again changes nothing.
    pub async fn edit(&self, tenant: Name, id: Name, job: Job) -> Result<Arc<Record>, CampaignError> {
        let this = self.clone();
        self.detached(async move { this.edit_now(tenant, id, job).await }).await
    }

    async fn edit_now(&self, tenant: Name, id: Name, mut job: Job) -> Result<Arc<Record>, CampaignError> {
        let entry = self.entry(&tenant, &id)?;
        let _one = entry.lock.lock().await;
        let record = entry.record();
        if job.id.as_ref().is_some_and(|given| *given != id) {
            return Err(CampaignError::Invalid { field: "id".into(), reason: format!("the path says {id}") });
        }
        job.id = Some(id);
        if record.hash == hex(&job.hash()) {
            return Ok(record);
        }
        way(&record, Action::Edit)?;
        let _upload = entry.no_upload()?;
        let mut problems = self.problems(&tenant, &job);
        // Rows were selected and keyed by these: with others they would be wrong.
        if record.state == State::Uploading {
            let fixed = ["class", "pool", "list", "audience", "segment", "exclude", "schedule"];
            let changed = self.job(&record).await?.differences(&job);
            for field in changed.iter().filter(|field| fixed.contains(&field.as_str())) {
                let fix = "make a new campaign";
                problems.push(Problem::new(field, "can't change any more: the recipients were taken by it").fix(fix));
            }
        }
        if !problems.is_empty() {
            return Err(CampaignError::Problems(problems));
        }
        let version = record.version.saturating_add(1);
        let changes = vec![
            Change::RemoveState { key: keys::job(record.no, record.version) },
            Change::PutState { key: keys::job(record.no, version), value: job.to_json() },
        ];
        let name = job.name.clone().unwrap_or_else(|| record.id.to_string());
        let record = Record { version, name, hash: hex(&job.hash()), ..Record::clone(&record) };
        self.commit(&entry, record, changes).await
    }

    /// Records of a tenant or of all, in the order of tenant and id, strictly after one of them.
    pub fn list(
        &self,
        tenant: Option<&Name>,
        state: Option<State>,
        after: Option<(Name, Name)>,
        limit: usize,
    ) -> Vec<Arc<Record>> {
        let all = self.0.all.read();
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let records = all.by_id.range((from, std::ops::Bound::Unbounded)).map(|(_, entry)| entry.record());
        let wanted = |r: &Arc<Record>| tenant.is_none_or(|t| *t == r.tenant) && state.is_none_or(|s| s == r.state);
        records.filter(wanted).take(limit).collect()
    }

    /// The tenants that have a campaign with this id: for the node's keys, which name no tenant.
    pub fn tenants_of(&self, id: &Name) -> Vec<Name> {
        let all = self.0.all.read();
        all.by_id.keys().filter(|(_, own)| own == id).map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Deletes a campaign that was not started, or has ended: rows, counts and what is known of who got it. Its events stay.
    ///
    /// The same job and list would then be sent again.
    pub async fn delete(&self, tenant: Name, id: Name) -> Result<(), CampaignError> {
        let this = self.clone();
        self.detached(async move { this.delete_now(tenant, id).await }).await
    }

    async fn delete_now(&self, tenant: Name, id: Name) -> Result<(), CampaignError> {
        let entry = self.entry(&tenant, &id)?;
        let _one = entry.lock.lock().await;
        let record = entry.record();
        way(&record, Action::Delete)?;
        let _upload = entry.no_upload()?;
        let head = self.head_of(&record).await?;
        let mut changes = self.parts().ports.recipients.forget(head).await?;
        changes.extend([
            Change::RemoveState { key: keys::record(&tenant, &id) },
            Change::RemoveState { key: keys::number(record.no) },
            Change::RemoveState { key: keys::job(record.no, record.version) },
            Change::RemoveState { key: keys::upload(record.no) },
            Change::PurgeCampaign(record.no),
        ]);
        self.parts().ledger.submit(changes).await?;
        let mut all = self.0.all.write();
        all.by_id.remove(&(tenant, id));
        all.by_no.remove(&record.no);
        drop(all);
        self.stands(record.state, -1);
        self.moved(Action::Delete);
        self.unseal(record.no);
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
