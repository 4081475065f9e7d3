package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"guard"
	"guard/bpf"
)

// What a user's guard and the monitor of the machine say to each other. The user's says only what has a fixed
// form: a header, and needles that it hashed under the monitor's key. Each such list takes the place of the one before.
const (
	wireMagic = 0x31647267 // "grd1"
	// maxRegistered is how many needles one user's guards may register, all together, and maxRegisteredAll how many
	// everybody's.
	maxRegistered    = 4096
	maxRegisteredAll = bpf.MaxNeedles / 2
)

type wireHeader struct {
	Magic uint32
	Count uint32
	Epoch uint64 // of the key
}

// watchSays is a line of JSON from the monitor.
type watchSays struct {
	Key      *bpf.HashKey `json:"key,omitempty"` // hash under this from now on
	Epoch    uint64       `json:"epoch,omitempty"`
	Watching *int         `json:"watching,omitempty"` // so many of the last list are looked for
	Hit      *watchHit    `json:"hit,omitempty"`

	Elsewhere *watchElsewhere `json:"elsewhere,omitempty"`

	Error string `json:"error,omitempty"` // and the connection ends
	Lost  uint64 `json:"lost,omitempty"`  // hits that were not sent, since the reader was too slow
}

// watchHit is a find of the user's value in a process of the same user.
type watchHit struct {
	Handle uint32    `json:"handle"`
	First  int       `json:"first"` // the guard process that it is or descends from; 0: none
	Event  bpf.Event `json:"event"` // with its window
}

// watchElsewhere is a find of the user's value in another user's process. That it was, when, whose process and which program
// is all that is told.
type watchElsewhere struct {
	Handle  uint32        `json:"handle"`
	At      time.Time     `json:"at"`
	UID     int           `json:"uid"`
	Exe     string        `json:"exe,omitempty"`
	Channel guard.Channel `json:"channel"`
	Refused bool          `json:"refused,omitempty"`
}

func writeList(w io.Writer, epoch uint64, list []bpf.HashedNeedle) error {
	b, err := binary.Append(nil, binary.LittleEndian, wireHeader{wireMagic, uint32(len(list)), epoch})
	if err == nil {
		b, err = binary.Append(b, binary.LittleEndian, list)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// readHeader is the wait for the next list, readList what then has to come at once.
func readHeader(r io.Reader) (wireHeader, error) {
	var h wireHeader
	if err := binary.Read(r, binary.LittleEndian, &h); err != nil {
		return h, err
	}
	if h.Magic != wireMagic {
		return h, errors.New("this is not a list of needles")
	}
	if h.Count > maxRegistered {
		return h, fmt.Errorf("%d needles: the limit is %d for a user", h.Count, maxRegistered)
	}
	return h, nil
}

func readList(r io.Reader, h wireHeader) ([]bpf.HashedNeedle, error) {
	list := make([]bpf.HashedNeedle, h.Count)
	if err := binary.Read(r, binary.LittleEndian, list); err != nil {
		return nil, err
	}
	for _, n := range list {
		if err := n.Check(); err != nil {
			return nil, err
		}
	}
	return list, nil
}
