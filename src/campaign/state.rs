//! The ways between the states of a campaign: one table, and what each step is called when it is refused.

use super::model::State;

/// What moves a campaign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// The job is changed.
    Edit,
    /// Recipients come in.
    Upload,
    /// A start was asked for.
    Start,
    /// The checks refused the start.
    Refuse,
    /// It is sealed and due later.
    Schedule,
    /// Its rows are due.
    Run,
    /// An operator holds it.
    Pause,
    /// An operator lets it go on.
    Resume,
    /// An operator ends it.
    Cancel,
    /// One of its own conditions stops it.
    Halt,
    /// Its last row has ended.
    Finish,
    /// All that is left of it goes.
    Delete,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 12] = [
        Action::Edit,
        Action::Upload,
        Action::Start,
        Action::Refuse,
        Action::Schedule,
        Action::Run,
        Action::Pause,
        Action::Resume,
        Action::Cancel,
        Action::Halt,
        Action::Finish,
        Action::Delete,
    ];

    /// The action as metrics count it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Edit => "edit",
            Action::Upload => "upload",
            Action::Start => "start",
            Action::Refuse => "refuse",
            Action::Schedule => "schedule",
            Action::Run => "run",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Cancel => "cancel",
            Action::Halt => "halt",
            Action::Finish => "finish",
            Action::Delete => "delete",
        }
    }

    /// The action as a sentence's end: "can't be …".
    pub fn participle(self) -> &'static str {
        match self {
            Action::Edit => "edited",
            Action::Upload => "given recipients",
            Action::Start => "started",
            Action::Refuse => "refused",
            Action::Schedule => "scheduled",
            Action::Run => "run",
            Action::Pause => "paused",
            Action::Resume => "resumed",
            Action::Cancel => "cancelled",
            Action::Halt => "halted",
            Action::Finish => "finished",
            Action::Delete => "deleted",
        }
    }
}

/// What an action does in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It goes to this state.
    To(State),
    /// It was done before: the same answer, nothing changes.
    Already,
    /// It makes no sense here.
    Illegal,
}

impl State {
    /// The state after an action: the table of all ways.
    ///
    /// Commands are idempotent: who asks again after a lost answer gets `Already`, not an error.
    pub fn after(self, action: Action) -> Way {
        use Action as A;
        use State as S;
        match (action, self) {
            (A::Edit, S::Draft | S::Uploading) => Way::To(self),
            (A::Upload, S::Draft | S::Uploading) => Way::To(S::Uploading),
            (A::Start, S::Draft | S::Uploading) => Way::To(S::Checking),
            // A second start of the same campaign sends nothing: also when it is over.
            (A::Start, S::Checking | S::Scheduled | S::Running | S::Paused | S::Done) => Way::Already,
            (A::Refuse, S::Checking) => Way::To(S::Uploading),
            (A::Schedule, S::Checking) => Way::To(S::Scheduled),
            (A::Run, S::Checking | S::Scheduled) => Way::To(S::Running),
            (A::Run, S::Running) => Way::Already,
            (A::Pause, S::Scheduled | S::Running) => Way::To(S::Paused),
            (A::Pause, S::Paused | S::Halted) => Way::Already,
            (A::Resume, S::Paused | S::Halted) => Way::To(S::Running),
            (A::Resume, S::Scheduled | S::Running) => Way::Already,
            (A::Cancel, S::Draft | S::Uploading | S::Checking | S::Scheduled | S::Running | S::Paused | S::Halted) => {
                Way::To(S::Cancelled)
            }
            (A::Cancel, S::Cancelled) => Way::Already,
            (A::Halt, S::Running) => Way::To(S::Halted),
            (A::Halt, S::Halted) => Way::Already,
            (A::Finish, S::Scheduled | S::Running | S::Paused | S::Halted) => Way::To(S::Done),
            (A::Finish, S::Done) => Way::Already,
            (A::Delete, S::Draft | S::Uploading | S::Done | S::Cancelled) => Way::To(self),
            (A::Edit, S::Checking | S::Scheduled | S::Running | S::Paused | S::Done | S::Cancelled | S::Halted)
            | (A::Upload, S::Checking | S::Scheduled | S::Running | S::Paused | S::Done | S::Cancelled | S::Halted)
            | (A::Start, S::Cancelled | S::Halted)
            | (
                A::Refuse | A::Schedule,
                S::Draft | S::Uploading | S::Scheduled | S::Running | S::Paused | S::Done | S::Cancelled | S::Halted,
            )
            | (A::Run, S::Draft | S::Uploading | S::Paused | S::Done | S::Cancelled | S::Halted)
            | (A::Pause | A::Resume, S::Draft | S::Uploading | S::Checking | S::Done | S::Cancelled)
            | (A::Cancel, S::Done)
            | (A::Halt, S::Draft | S::Uploading | S::Checking | S::Scheduled | S::Paused | S::Done | S::Cancelled)
            | (A::Finish, S::Draft | S::Uploading | S::Checking | S::Cancelled)
            | (A::Delete, S::Checking | S::Scheduled | S::Running | S::Paused | S::Halted) => Way::Illegal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, a line a state: what each action does there.
    #[test]
    fn the_table() {
        let cell = |state: State, action| match state.after(action) {
            Way::To(to) if to == state => "=".to_owned(),
            Way::To(to) => to.to_string(),
            Way::Already => "already".into(),
            Way::Illegal => "-".into(),
        };
        let line = |state: State| {
            let cells: Vec<String> = Action::ALL.iter().map(|action| cell(state, *action)).collect();
            format!("{state}: {}", cells.join(" "))
        };
        let table: Vec<String> = State::ALL.into_iter().map(line).collect();
        // edit upload start refuse schedule run pause resume cancel halt finish delete
        let want = [
            "draft: = uploading checking - - - - - cancelled - - =",
            "uploading: = = checking - - - - - cancelled - - =",
            "checking: - - already uploading scheduled running - - cancelled - - -",
            "scheduled: - - already - - running paused already cancelled - done -",
            "running: - - already - - already paused already cancelled halted done -",
            "paused: - - already - - - already running cancelled - done -",
            "done: - - already - - - - - - - already =",
            "cancelled: - - - - - - - - already - - =",
            "halted: - - - - - - already running cancelled already done -",
        ];
        assert_eq!(table, want);
    }

    #[test]
    fn what_has_ended_stays_ended() {
        for state in State::ALL.into_iter().filter(|s| s.is_ended()) {
            for action in Action::ALL {
                assert!(
                    matches!(state.after(action), Way::Illegal | Way::Already) || state.after(action) == Way::To(state)
                );
            }
        }
    }
}
