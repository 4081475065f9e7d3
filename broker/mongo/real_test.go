package mongo

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// A server that is no test's own: GUARD_TEST_MONGODB=127.0.0.1:PORT, with a user
// real_login whose password is that of these tests. MongoDB itself is not packaged by
// Debian; FerretDB 1.24 is built from its module, and started with --handler=sqlite
// --test-enable-new-auth --setup-username, --setup-password and --setup-database=admin.
func TestAgainstServer(t *testing.T) {
	addr := os.Getenv("GUARD_TEST_MONGODB")
	if addr == "" {
		t.Skip("GUARD_TEST_MONGODB names no server: none is packaged for Debian")
	}
	_, port, err := net.SplitHostPort(addr)
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	w := newWorld(t, &server{port: n})
	out, err := exec.Command("/usr/bin/python3", "-c", fmt.Sprintf(`
import pymongo
c = pymongo.MongoClient("mongodb://me:%s@127.0.0.1:%d/?directConnection=true", serverSelectionTimeoutMS=10000)
c.drop_database("app")
print(c.app.things.insert_many([{"a": i, "b": "x" * 1000} for i in range(5000)]).acknowledged)
print(len(list(c.app.things.find())), c.app.things.count_documents({}))
print(c.app.things.find_one_and_update({"a": 3}, {"$set": {"a": -1}})["a"])
print(list(c.app.things.aggregate([{"$match": {"a": {"$lt": 3}}}, {"$count": "n"}])))
c.app.things.create_index("a")
for cmd in ({"createUser": "evil", "pwd": "x", "roles": []}, {"shutdown": 1}, {"usersInfo": 1, "showCredentials": True}):
    try:
        print(c.app.command(cmd))
    except pymongo.errors.OperationFailure as e:
        print(e.code, str(e)[:60])
print(c.admin.command("connectionStatus"))
`, holder, w.port)).CombinedOutput()
	if err != nil || strings.Contains(string(out), realUser) || strings.Count(string(out), "13 guard refuse") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"True\n5000 5000\n3\n[{'n': 4}]\n", "'user': 'me'"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
