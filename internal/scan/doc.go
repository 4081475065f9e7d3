// Package scan looks for secrets in files, archives, streams and the history of
// git repositories: for known values with package matcher, and for credential
// formats with package formats. A finding never holds the secret, and no name
// that is printed does.
//
// # Files
//
// [Scanner.Files] walks in the order of names and looks into several files at a
// time; findings come in the order of the walk. Symbolic links are not followed
// and devices, pipes and sockets not opened; both are counted. What git ignores is
// left out and counted (gitignore(5), the index, info/exclude, core.excludesFile);
// outside of a repository the .gitignore files below the root count. Of a .git
// folder everything but the objects is read. A file of up to 4 MiB is searched
// as a whole, a larger one as a stream.
//
// # Archives
//
// tar, zip (jar, whl, docx, ...), gzip, zstd, bzip2 and brotli (by its name) are
// recognised by their contents and opened, in each other up to 8 deep. A finding
// in one has "a.zip!inner/path" as its file. What an outermost archive may expand
// to is bounded: to 250 times its size, at least 16 MiB, at most
// [Options.MaxArchive]. An archive that is damaged, encrypted, of another kind or
// larger is searched as it is, and counted. Nothing is ever written.
//
// # History
//
// [Scanner.History] reads every object of a repository once, whatever refers to it:
// blobs, and the bytes of commits and tags, and every name in a tree. It asks git
// for objects from a repository folder of its own that only borrows the objects,
// so that nothing of the repository's configuration is read and nothing of it can
// run. Where a blob first appeared is looked up for findings only.
//
// # Goroutines
//
// Files and History start goroutines and wait for them before they return.
package scan
