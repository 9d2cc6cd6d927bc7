//! The message of an instruction's commit: what it did, and the two trailers by which it is known ever after.

use contract::{InstructionId, SessionId};
use git2::Signature;

use super::COMMITTER;

/// The trailer that names the instruction. The remote's history with this trailer is the truth of what has landed.
pub(crate) const INSTRUCTION_TRAILER: &str = "Edit-Instruction";
/// The trailer that names the session.
pub(crate) const SESSION_TRAILER: &str = "Edit-Session";

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
        format!(
            "{summary}\n\n{INSTRUCTION_TRAILER}: {}\n{SESSION_TRAILER}: {}\n",
            self.instruction_id, self.session_id
        )
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

/// The instruction that a commit carries out, by its last paragraph.
pub(crate) fn instruction_of(message: &[u8]) -> Option<InstructionId> {
    let message = std::str::from_utf8(message).ok()?.trim_end();
    let (_, last_paragraph) = message.rsplit_once("\n\n")?;
    let prefix = format!("{INSTRUCTION_TRAILER}: ");
    last_paragraph
        .lines()
        .find_map(|line| line.strip_prefix(&prefix))?
        .trim()
        .parse()
        .ok()
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
        fn whatever_the_summary_the_trailer_is_the_instructions_own(summary in ".*", id in "[A-Za-z0-9._:-]{1,40}") {
            let rendered = message(&summary, &id).render();
            prop_assert_eq!(instruction_of(rendered.as_bytes()), Some(id.parse().expect("valid")));
            prop_assert_eq!(rendered.matches("\nEdit-Instruction: ").count(), 1);
        }
    }
}
