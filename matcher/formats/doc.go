// Package formats finds credentials by their form: a prefix and an alphabet, a
// checksum, a structure, or a keyword and randomness where nothing better
// exists. It does no I/O but for its cache, and starts no goroutine.
package formats
