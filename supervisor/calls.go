package supervisor

// Calls tells the finds of one call apart: a value is found also without its public
// prefix, and in part, in the same bytes. The zero value is ready.
type Calls struct {
	latest map[int]foundCall // by thread
}

// maxCallFinds bounds how many finds of one call are remembered, and maxCallThreads of how
// many threads the latest call is.
const (
	maxCallFinds   = 64
	maxCallThreads = 1 << 12
)

type foundCall struct {
	call  uint64
	finds []Find
}

// Again says that f is another form of what was found before it in the same call of the same
// thread. What lies elsewhere in its bytes, or is another credential's, is not; and neither is the
// same value in the next call.
func (c *Calls) Again(f Find) bool {
	if c.latest == nil {
		c.latest = map[int]foundCall{}
	}
	l := c.latest[f.TID]
	if l.call != f.Call || f.Call == 0 {
		l = foundCall{call: f.Call}
	}
	for _, x := range l.finds {
		if x.Secret == f.Secret && x.Offset < f.Offset+int64(f.Length) && f.Offset < x.Offset+int64(x.Length) {
			return true
		}
	}
	if len(c.latest) >= maxCallThreads {
		clear(c.latest)
	}
	if len(l.finds) < maxCallFinds {
		l.finds = append(l.finds, f)
	}
	c.latest[f.TID] = l
	return false
}
