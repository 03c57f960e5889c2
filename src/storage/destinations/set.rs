//! Publishing sets: many files, one of which makes the others known.
//!
//! Segments go to their final names at once, in a folder that no other publication uses, where nothing leads to them. The
//! lists are staged like single files and committed under the permit, the entry last (PROTOCOL §1.2, §2 step 7). The
//! entry is the fence: a set whose entry was destroyed is taken away whole, lists that were committed before it included.

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::places::{Located, Resolved};
use super::{Committed, Destinations, HandleFate, SetFiles, StagedFile, blocking};
use crate::domain::{Code, Destination, Failure, PublicationId};
use crate::storage::handle::{Handle, Staged, StagedSet};
use crate::storage::local;

/// Files that are sent to a bucket at once; each costs three requests, most of which is waiting.
const AT_ONCE: usize = 8;

impl Destinations {
    /// [`Destinations::stage`] for a set: afterwards everything is at the destination, and the lists are invisible.
    pub async fn stage_set<J, F>(
        &self,
        destination: &Destination,
        publication: PublicationId,
        files: &SetFiles,
        journal: J,
    ) -> Result<Handle, Failure>
    where
        J: FnOnce(Handle) -> F + Send,
        F: Future<Output = Result<(), Failure>> + Send,
    {
        let entry = self.begin(destination, publication, &files.entry).await?;
        let members = files.members.iter().map(|(name, _)| name.clone()).collect();
        let mut set = StagedSet { entry, lists: Vec::new(), members };
        let begun = self.begin_lists(&mut set, destination, files).await;
        let handle = Handle::V2(set.clone());
        let sending = async {
            begun?;
            journal(handle.clone()).await?;
            self.send_set(set, destination, files).await.map(Handle::V2)
        };
        self.or_destroyed(handle.clone(), sending).await
    }

    async fn begin_lists(
        &self,
        set: &mut StagedSet,
        destination: &Destination,
        files: &SetFiles,
    ) -> Result<(), Failure> {
        for (n, (name, file)) in files.lists.iter().enumerate() {
            let place = beside(destination, name)?;
            let list = StagedSet::mark_of_list(set.entry.publication, n);
            set.lists.push(self.begin(&place, list, file).await?);
        }
        Ok(())
    }

    async fn send_set(
        &self,
        mut set: StagedSet,
        destination: &Destination,
        files: &SetFiles,
    ) -> Result<StagedSet, Failure> {
        let publication = set.entry.publication;
        let at_once = self.at_once(&set)?;
        let members = files.members.iter().enumerate();
        let sending: Vec<BoxFuture<'_, _>> = members
            .map(|(n, (name, file))| {
                let mark = StagedSet::mark_of_member(publication, n);
                self.send_member(destination, name, mark, file).boxed()
            })
            .collect();
        futures_util::stream::iter(sending).buffer_unordered(at_once).try_collect::<()>().await?;
        for (list, (_, file)) in set.lists.iter_mut().zip(&files.lists) {
            *list = self.send(list.clone(), file).await?;
        }
        set.entry = self.send(set.entry, &files.entry).await?;
        Ok(set)
    }

    async fn send_member(
        &self,
        destination: &Destination,
        name: &str,
        publication: PublicationId,
        file: &StagedFile,
    ) -> Result<(), Failure> {
        let begun = self.begin(&beside(destination, name)?, publication, file).await?;
        let sent = match self.send(begun.clone(), file).await {
            Ok(sent) => self.commit_file(&sent).await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        if sent.is_err() {
            // The set's handle knows names, not uploads.
            let _ = self.destroy_file(&begun).await;
        }
        sent
    }

    pub(super) async fn commit_set(&self, set: &StagedSet) -> Result<Committed, Failure> {
        for list in &set.lists {
            self.commit_file(list).await?;
        }
        self.commit_file(&set.entry).await
    }

    pub(super) async fn destroy_set(&self, set: &StagedSet) -> Result<HandleFate, Failure> {
        let fate = self.destroy_file(&set.entry).await?;
        if let HandleFate::Committed(_) = fate {
            return Ok(fate);
        }
        // From here on nobody can commit it, so that nothing of it is wanted.
        for list in &set.lists {
            if let HandleFate::Committed(_) = self.destroy_file(list).await? {
                self.take_away(list).await?;
            }
        }
        self.remove_members(set).await?;
        // The folders that were made for it are empty now.
        self.destroy_file(&set.entry).await
    }

    /// How many files of a set are worked on at once: a disk gains nothing by it, and FTP servers count connections.
    fn at_once(&self, set: &StagedSet) -> Result<usize, Failure> {
        Ok(match self.resolve(&set.entry)? {
            Resolved::Object { .. } => AT_ONCE,
            Resolved::File(_) | Resolved::Ftp { .. } | Resolved::Http(_) => 1,
        })
    }

    /// Removes the files of a publication's own folder.
    async fn remove_members(&self, set: &StagedSet) -> Result<(), Failure> {
        let at_once = self.at_once(set)?;
        let members = set.members().collect::<Vec<_>>();
        let removing: Vec<BoxFuture<'_, _>> =
            members.iter().map(|member| self.take_away(member).boxed()).collect();
        futures_util::stream::iter(removing).buffer_unordered(at_once).try_collect::<()>().await
    }

    /// Removes the files of a set whose entry is not this publication's any more. Those in its own folder are nobody
    /// else's; a list beside the entry may have been replaced.
    pub(super) async fn remove_others(
        &self,
        destination: &Destination,
        publication: PublicationId,
        others: &[String],
    ) -> Result<(), Failure> {
        let (members, lists): (Vec<_>, Vec<_>) = others.iter().partition(|name| name.contains('/'));
        for (n, name) in lists.iter().enumerate() {
            self.remove_entry(&beside(destination, name)?, StagedSet::mark_of_list(publication, n)).await?;
        }
        for name in members {
            match self.locate(&beside(destination, name)?)? {
                Located::File { root, path } => {
                    let root = root.clone();
                    blocking(move || local::remove_member(&root, &path)).await?;
                }
                Located::Object { bucket, key } => bucket.delete(&key).await?,
            }
        }
        Ok(())
    }

    /// Removes a file that lies under its own name; one that is not there is removed already.
    async fn take_away(&self, staged: &Staged) -> Result<(), Failure> {
        match self.resolve(staged)? {
            Resolved::File(target) => blocking(move || local::take_away(&target)).await,
            Resolved::Object { bucket, upload, .. } => bucket.delete(upload.key).await,
            Resolved::Ftp { uploads, part } => uploads.take_away(&part.path).await,
            Resolved::Http(_) => Ok(()),
        }
    }
}

fn beside(destination: &Destination, name: &str) -> Result<Destination, Failure> {
    destination.beside(name).ok_or_else(|| {
        let message = "a set of files needs a folder; this destination takes one file";
        Failure::new(Code::DestinationForbidden, message)
    })
}
