// Package audit is guard's append-only, tamper-evident log. This page is the
// specification of the format; a verifier needs nothing else.
//
// # Files
//
// A log is a folder with
//
//	log.jsonl    the newest records: one JSON object a line (Record), UTF-8, LF
//	log-FIRST-LAST-BYTES.jsonl
//	             records FIRST to LAST, of 12 digits each, which had been log.jsonl until
//	             it had 64 MiB; BYTES, of 15 digits, is the length of all records before them
//	hashes       the Merkle tree over them: 32 bytes a hash, in the order of
//	             tlog.StoredHashIndex. Derived from log.jsonl, never trusted alone
//	checkpoint   a signed statement of how many records there are, and their root
//	pending      the same for the group of records being written; there only
//	             during a commit, or after one that was killed
//	key.pub      the note verifier key, for offline verification
//	log-....jsonl.idx
//	             where in a closed file which records are, signed (index.go)
//	lock         empty; flock'ed by whoever appends
//
// Record i (from 0, its seq is i+1) is leaf i: SHA-256(0x00 || line), where line
// is without its LF. Inner nodes are SHA-256(0x01 || left || right), RFC 6962,
// as in golang.org/x/mod/sumdb/tlog, so that inclusion and consistency proofs
// can be made from hashes.
//
// A checkpoint is a C2SP tlog-checkpoint, signed as a note (Ed25519, key name
// "guard-audit"):
//
//	guard-audit
//	<number of records, decimal>
//	<root hash, base64>
//	bytes <length of all records there ever were, these included>
//	leaf <hash of a record that this commit added, base64>
//	...
//
//	— guard-audit <signature>
//
// # Writing
//
// A commit, under the lock: sign the new checkpoint into pending and sync it;
// append the lines to log.jsonl and sync it; write hashes; rename pending to
// checkpoint. Append returns after that, so whoever acts only after Append acts
// on a record that is on the disk. Concurrent Appends share one commit. This takes
// from the file system that a sync of a new file also keeps earlier renames in its
// folder (ext4, XFS and btrfs do).
//
// # Recovery
//
// Whatever is killed, log.jsonl is what the checkpoint covers, followed by a
// prefix of what pending announces. The next commit or Open, of any process,
// keeps every complete line whose hash pending announces, cuts a torn line,
// signs that, and appends a record of type log.healed that says so. A complete
// line that neither covers was not written by guard: ErrTampered. Nothing that a
// checkpoint covers is ever dropped. hashes are rebuilt when they do not give
// the checkpoint's root but log.jsonl does.
//
// # Files that are closed, and removed
//
// A file of records is closed, by renaming it, at the beginning of a commit, when no record
// is in flight; every writer notices that its file has another name now. Prune removes
// the oldest closed files, after a record of type log.pruned, with the seq of the last record
// that goes (through), is durable. The hashes of removed records stay, so that Verify still
// computes the root over all records there ever were; files that are missing without such
// a record are found.
//
// # Proofs
//
// Prove writes a C2SP tlog-proof of one record, which holds the record, the hashes to the
// root and the signed checkpoint: CheckProof needs the public key and nothing else.
//
// # What it proves, and what it does not
//
// Verify finds any change, deletion, insertion, reordering and truncation of
// records, and a checkpoint by another key, and says at which record, as long
// as hashes was not changed to match; then it knows that, not where. key.pub
// lies beside the log: who can write there can replace log and key together,
// so a verifier should bring the key itself (the vault has it).
//
// A log that is cut and given back its older checkpoint is a valid, shorter log.
// That is found only by who remembers more: keep Log.Head somewhere else (the
// vault) and use VerifyAgainst. The key signs the future and the past: who gets
// it can rewrite everything after the last head kept elsewhere.
//
// No field of a Record can hold a secret by design: paths lose their query,
// strings are bounded, control and format characters are escaped visibly.
//
// The package starts no goroutine: a commit runs in the goroutine of the first
// Append that waits for it.
package audit
