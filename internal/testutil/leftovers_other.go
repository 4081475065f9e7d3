//go:build !linux

package testutil

func osKinds() kinds { return kinds{} }
