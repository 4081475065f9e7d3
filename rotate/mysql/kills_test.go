package mysql

import (
	"testing"

	"guard/rotate/rotatetest"
)

func TestKills(t *testing.T) { rotatetest.Kills(t, open(start(t), "admin")) }
