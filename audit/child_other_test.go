//go:build !linux

package audit

func limitFileSize(string) {}
