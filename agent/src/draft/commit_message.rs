//! The message of an instruction's commit: what it did, and the trailers by which it is known ever after.

use contract::{Action, InstructionId, SessionId};
use git2::Signature;

use super::COMMITTER;

/// The trailer that names the instruction. The remote's history with this trailer is the truth of what has landed.
pub(crate) const INSTRUCTION_TRAILER: &str = "Edit-Instruction";
/// The trailer that names the session.
pub(crate) const SESSION_TRAILER: &str = "Edit-Session";
/// The trailer that says what kind of action it was. Absent for [`EDIT`], which most are, and which commits were before there
/// was this trailer.
pub(crate) const ACTION_TRAILER: &str = "Edit-Action";
/// The trailer that names the instruction that an `undo` takes back.
pub(crate) const UNDOES_TRAILER: &str = "Edit-Undoes";

/// The kind of action of a commit that does not say its kind.
const EDIT: &str = "edit";

/// What a commit says.
#[derive(Debug, Clone)]
pub(crate) struct CommitMessage {
    /// One line.
    pub(crate) summary: String,
    /// Which instruction.
    pub(crate) instruction_id: InstructionId,
    /// Which session.
    pub(crate) session_id: SessionId,
    /// The person: name and e-mail address. The agent itself if nobody is named.
    pub(crate) author: Option<(String, String)>,
    /// When the person asked: seconds since 1970.
    pub(crate) authored_at: i64,
    /// What kind of action: a word of [`Action::KINDS`].
    pub(crate) action: &'static str,
    /// The instruction that it takes back.
    pub(crate) undoes: Option<InstructionId>,
}

/// What the trailers of a commit say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trailers {
    /// Which instruction the commit carries out.
    pub(crate) instruction_id: InstructionId,
    /// What kind of action: a word of [`Action::KINDS`].
    pub(crate) action: &'static str,
    /// The instruction that it takes back.
    pub(crate) undoes: Option<InstructionId>,
}

impl CommitMessage {
    /// The text of the message. The trailers are its last paragraph and nothing a person wrote can be among them.
    pub(crate) fn render(&self) -> String {
        let summary: String = self
            .summary
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let summary = match summary.trim() {
            "" => "Edit the site",
            text => text,
        };
        let mut message = format!(
            "{summary}\n\n{INSTRUCTION_TRAILER}: {}\n{SESSION_TRAILER}: {}\n",
            self.instruction_id, self.session_id
        );
        if self.action != EDIT {
            message.push_str(&format!("{ACTION_TRAILER}: {}\n", self.action));
        }
        if let Some(undone) = &self.undoes {
            message.push_str(&format!("{UNDOES_TRAILER}: {undone}\n"));
        }
        message
    }

    /// Author and committer.
    pub(crate) fn signatures(
        &self,
    ) -> Result<(Signature<'static>, Signature<'static>), git2::Error> {
        let (name, email) = self
            .author
            .as_ref()
            .map_or(COMMITTER, |(name, email)| (name.as_str(), email.as_str()));
        let author = Signature::new(name, email, &git2::Time::new(self.authored_at, 0))?;
        Ok((author, Signature::now(COMMITTER.0, COMMITTER.1)?))
    }
}

/// What a commit says by the trailers in its last paragraph; nothing if it carries out no instruction.
pub(crate) fn trailers_of(message: &[u8]) -> Option<Trailers> {
    let message = std::str::from_utf8(message).ok()?.trim_end();
    let (_, last_paragraph) = message.rsplit_once("\n\n")?;
    let value_of = |trailer: &str| {
        last_paragraph
            .lines()
            .find_map(|line| line.strip_prefix(trailer)?.strip_prefix(": "))
            .map(str::trim)
    };
    // A word that this build does not know is of a newer one; it changed files like an edit.
    let action = value_of(ACTION_TRAILER)
        .and_then(|word| Action::KINDS.into_iter().find(|kind| *kind == word));
    Some(Trailers {
        instruction_id: value_of(INSTRUCTION_TRAILER)?.parse().ok()?,
        action: action.unwrap_or(EDIT),
        undoes: value_of(UNDOES_TRAILER).and_then(|id| id.parse().ok()),
    })
}

/// The instruction that a commit carries out.
pub(crate) fn instruction_of(message: &[u8]) -> Option<InstructionId> {
    trailers_of(message).map(|trailers| trailers.instruction_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(summary: &str, id: &str) -> CommitMessage {
        CommitMessage {
            summary: summary.to_owned(),
            instruction_id: id.parse().expect("valid"),
            session_id: "amelia_x".parse().expect("valid"),
            author: None,
            authored_at: 0,
            action: EDIT,
            undoes: None,
        }
    }

    #[test]
    fn a_commit_says_what_it_did_and_for_which_instruction() {
        insta::assert_snapshot!(message("Edit src/pages/index.astro", "i-1").render(), @r"
        Edit src/pages/index.astro

        Edit-Instruction: i-1
        Edit-Session: amelia_x
        ");
    }

    #[test]
    fn an_undo_says_that_it_is_one_and_of_what() {
        let undo = CommitMessage {
            action: "undo",
            undoes: Some("i-1".parse().expect("valid")),
            ..message("Undo “Edit src/pages/index.astro”", "i-2")
        };
        insta::assert_snapshot!(undo.render(), @r"
        Undo “Edit src/pages/index.astro”

        Edit-Instruction: i-2
        Edit-Session: amelia_x
        Edit-Action: undo
        Edit-Undoes: i-1
        ");
    }

    #[test]
    fn an_action_of_a_newer_agent_counts_as_an_edit() {
        let message = b"x\n\nEdit-Instruction: i-1\nEdit-Session: s\nEdit-Action: dream\n";
        let trailers = trailers_of(message).expect("ours");
        assert_eq!((trailers.action, trailers.undoes), (EDIT, None));
    }

    #[test]
    fn a_commit_of_somebody_else_is_no_instruction() {
        assert_eq!(instruction_of(b"Edit-Instruction: forged"), None);
        assert_eq!(
            instruction_of(b"Fix\n\nEdit-Instruction: early\n\nSigned-off-by: x"),
            None
        );
        assert_eq!(instruction_of(b"\xff\xfe"), None);
    }

    proptest! {
        #[test]
        fn whatever_the_summary_the_trailers_are_the_instructions_own(
            summary in prop_oneof![".*", "(\n|\r|Edit-(Instruction|Action|Undoes): [a-z]{1,8}){0,12}"],
            id in "[A-Za-z0-9._:-]{1,40}",
            action in proptest::sample::select(Action::KINDS.to_vec()),
            undoes in proptest::option::of("[A-Za-z0-9._:-]{1,40}"),
        ) {
            let undoes: Option<InstructionId> = undoes.map(|id| id.parse().expect("valid"));
            let rendered = CommitMessage { action, undoes: undoes.clone(), ..message(&summary, &id) }.render();
            let expected = Trailers { instruction_id: id.parse().expect("valid"), action, undoes };
            prop_assert_eq!(trailers_of(rendered.as_bytes()), Some(expected));
            prop_assert_eq!(rendered.matches("\nEdit-Instruction: ").count(), 1);
        }
    }
}
