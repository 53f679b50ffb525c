package archtest

import (
	"path"
	"slices"
	"strings"
)

const genDir = "proto/gen/"

// layers: an import of pkg only ever points down.
var layers = map[string]int{
	"errs": 0, "event": 0, "reviewhash": 0, "backoff": 0, "lifecycle": 0, "config": 0,
	"telemetry": 1, "rpc": 1, "pg": 1, "redisconn": 1, "auth": 1, "keyring": 1, "netguard": 1, "condition": 1, "ratelimit": 1, "wake": 1,
	"outbox": 2, "stream": 2, "auditlog": 2, "idempotency": 2,
}

// sameLayer are the imports inside a layer that are wanted: rpc shows request ids and traces.
var sameLayer = map[string][]string{
	"rpc":    {"telemetry"},
	"config": {}, "outbox": {}, "stream": {},
}

// allowedBelow narrows what a layer may import of the one below it.
var allowedBelow = map[string][]string{
	"outbox":      {"pg", "redisconn"},
	"stream":      {"pg", "redisconn"},
	"auditlog":    {"pg"}, // its auditdb alone; the form itself is pure
	"idempotency": {"pg"},
}

// testOnly serves tests, `make up` and each other, never a service.
var testOnly = []string{"devstack", "pgtest", "redistest", "wiretest", "lifecycletest", "archtest"}

// domains are the packages that hold rules: no technology may enter them.
var domains = map[string][]string{
	"api-gateway":    {"records", "schema", "types", "events", "workflow", "identity", "audit", "review"},
	"outbox-relay":   {"sequence", "publish"},
	"sse-gateway":    {"hub", "resume"},
	"webhook-worker": {"delivery", "signing", "schedule", "endpoints"},
	"prompt-worker":  {"prompting", "review", "hooks", "runs", "limit"},
}

// technology is what a domain package may not import, by prefix.
var technology = []string{
	"github.com/jackc/pgx", "github.com/redis/", "google.golang.org/grpc", "google.golang.org/protobuf",
	"github.com/grpc-ecosystem", "database/sql", "net/http", genDir, "pkg/pg", "pkg/redisconn", "pkg/rpc",
}

func imports(f *file) []Violation {
	var out []Violation
	bad := func(rule, text string) { out = append(out, Violation{rule, f.path, text}) }
	for _, i := range f.imports() {
		switch {
		case strings.HasPrefix(f.dir, genDir):
			if ours(i) && !strings.HasPrefix(i, genDir) {
				bad("gen", "generated code imports "+i)
			}
			continue
		case f.test:
			continue
		}
		if p, ok := strings.CutPrefix(i, "pkg/"); ok && slices.Contains(testOnly, top(p)) && !mayUseTestOnly(f.dir) {
			bad("test-only", i+" is for tests")
		}
		if text := layer(f.dir, i); text != "" {
			bad("layers", text)
		}
		if isDomain(f.dir) && slices.ContainsFunc(technology, func(t string) bool { return under(i, t) }) {
			bad("domain", "a domain package imports "+i)
		}
		if strings.HasPrefix(f.dir, "pkg/") && (strings.HasPrefix(i, "services/") || strings.HasPrefix(i, "deploy/")) {
			bad("layers", "pkg imports "+i)
		}
		if s := service(f.dir); s != "" && service(i) != "" && service(i) != s {
			bad("services", s+" imports "+i)
		}
	}
	return out
}

// ours reports whether an import path, relative to the module, is of this repository.
func ours(i string) bool {
	return slices.Contains([]string{"pkg", "services", "deploy", "proto"}, top(i))
}

func top(p string) string { first, _, _ := strings.Cut(p, "/"); return first }

func under(i, prefix string) bool {
	return i == prefix || strings.HasPrefix(i, strings.TrimSuffix(prefix, "/")+"/")
}

// mayUseTestOnly: a package whose name ends in "test" supports tests, wherever it lies.
func mayUseTestOnly(dir string) bool {
	p, ok := strings.CutPrefix(dir, "pkg/")
	return strings.HasSuffix(dir, "test") || dir == "deploy" || strings.HasPrefix(dir, "deploy/") || ok && slices.Contains(testOnly, top(p))
}

// service is the name of the service a directory or import path belongs to, or "".
func service(p string) string {
	if rest, ok := strings.CutPrefix(p, "services/"); ok {
		return top(rest)
	}
	return ""
}

// layer says why a package of pkg may not import another, or "".
func layer(dir, i string) string {
	from, ok1 := strings.CutPrefix(dir, "pkg/")
	to, ok2 := strings.CutPrefix(i, "pkg/")
	if !ok1 || !ok2 || strings.HasSuffix(dir, "test") {
		return ""
	}
	from, to = top(from), top(to)
	low, known := layers[to]
	high, mine := layers[from]
	switch {
	case from == to || slices.Contains(testOnly, from):
		return ""
	case !mine:
		return "package " + from + " has no layer: give it one in archtest"
	case !known:
		return from + " imports " + to + ", which has no layer"
	case low > high, low == high && !slices.Contains(sameLayer[from], to) && low > 0:
		return from + " imports " + to + ", which is not below it"
	case low == 1 && high == 2 && !slices.Contains(allowedBelow[from], to):
		return from + " may import pg and redisconn of its lower layer, not " + to
	default:
		return ""
	}
}

func isDomain(dir string) bool {
	s := service(dir)
	rest, ok := strings.CutPrefix(dir, path.Join("services", s, "internal")+"/")
	return ok && s != "" && slices.Contains(domains[s], top(rest))
}
