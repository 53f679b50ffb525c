package tenancy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// argument is one field of a request, by its path of names; the elements of lists are the first of each.
type argument struct {
	path  []string
	field protoreflect.FieldDescriptor
	// beside is the field of the same message that says of which type an id is; empty when there is none.
	beside string
	// listed tells of each name of the path whether a list stands there.
	listed []bool
}

func (a argument) String() string { return strings.Join(a.path, ".") }

// kinds of arguments.
const (
	isID         = "id"
	isKey        = "key"
	isCursor     = "cursor"
	isAttributes = "attributes"
	isPlain      = "plain"
)

// kind says what a field is to another organisation's data; empty when nobody has said.
func kind(fd protoreflect.FieldDescriptor) string {
	name := string(fd.Name())
	switch k := fd.Kind(); {
	case slices.Contains(keyFields(), string(fd.Parent().Name())+"."+name):
		return isKey
	case slices.Contains(plainFields(), name), slices.Contains(credentialFields(), name), k == protoreflect.BoolKind, k == protoreflect.EnumKind:
		return isPlain
	case k == protoreflect.MessageKind && fd.Message().FullName() == jsonMessage:
		return isAttributes
	case k == protoreflect.MessageKind:
		return isPlain
	case strings.HasSuffix(name, "cursor"):
		return isCursor
	case slices.Contains(keyFields(), name):
		return isKey
	case regexp.MustCompile(`(^|_)ids?$`).MatchString(name) && k == protoreflect.StringKind:
		return isKey
	case regexp.MustCompile(`(^|_)ids?$`).MatchString(name), slices.Contains(idFields(), name):
		return isID
	default:
		return ""
	}
}

// arguments gives every field of a message and of those in it.
func arguments(d protoreflect.MessageDescriptor, prefix []string, lists ...bool) (out []argument) {
	fields := d.Fields()
	beside := ""
	for _, name := range []string{"type", "aggregate_type", "record_type"} {
		if fields.ByName(protoreflect.Name(name)) != nil {
			beside = name
		}
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		path, listed := append(slices.Clone(prefix), string(fd.Name())), append(slices.Clone(lists), fd.IsList())
		out = append(out, argument{path, fd, beside, listed})
		if fd.Kind() == protoreflect.MessageKind && !strings.HasPrefix(string(fd.Message().FullName()), "google.") && fd.Message().FullName() != jsonMessage && len(path) < 6 {
			out = append(out, arguments(fd.Message(), path, listed...)...)
		}
	}
	return out
}

// candidate is a value to put into an argument, and the type of the record that it is the id of.
type candidate struct {
	value  any
	of     string
	source string
}

// set gives a copy of a request with a value in an argument.
func (a argument) set(r request, c candidate) request {
	out := maps.Clone(r)
	at := out
	for i, name := range a.path[:len(a.path)-1] {
		var inner request
		switch v := at[name].(type) {
		case request:
			inner = maps.Clone(v)
			at[name] = inner
		case []any:
			first, _ := v[0].(request)
			inner = maps.Clone(first)
			at[name] = append([]any{inner}, v[1:]...)
		default:
			inner = request{}
			at[name] = []any{inner}
			if !a.listed[i] {
				at[name] = inner
			}
		}
		at = inner
	}
	last := a.path[len(a.path)-1]
	at[last] = c.value
	if a.field.IsList() {
		at[last] = []any{c.value}
	}
	if c.of != "" && a.beside == "" && a.subject() && r["type"] != nil { // of all operations of a batch
		out["type"] = c.of
	}
	if c.of != "" && a.beside != "" && a.subject() {
		at[a.beside] = c.of
		if a.field.ContainingMessage().Fields().ByName(protoreflect.Name(a.beside)).IsList() {
			at[a.beside] = []any{c.of}
		}
	}
	return out
}

// subject tells whether the argument is the id of what the type beside it says, not a reference to something else.
func (a argument) subject() bool {
	return slices.Contains([]string{"id", "aggregate_id", "record_id", "ids", "record_ids", "aggregate_ids"}, string(a.field.Name()))
}

// given tells whether a request has a value for the argument.
func (a argument) given(r request) bool { return a.value(r) != nil }

// value is what a request has in the argument; nil for nothing.
func (a argument) value(r request) any {
	at := any(r)
	for _, name := range a.path {
		if list, ok := at.([]any); ok && len(list) > 0 {
			at = list[0]
		}
		members, ok := at.(request)
		if !ok {
			return nil
		}
		at = members[name]
	}
	if list, ok := at.([]any); ok && len(list) > 0 {
		return list[0]
	}
	return at
}

// candidates gives what the rows of an organisation hold and those of the other do not: ids and texts.
func (w *world) candidates(of, not int64) (ids, keys []candidate) {
	t, ctx := w.t, w.t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	r, err := newRows(ctx, tx, of, not)
	require.NoError(t, err)
	seen := map[string]bool{}
	records, err := tx.Query(ctx, `SELECT DISTINCT ON (type) type, id FROM sametick.records WHERE org_id = $1 ORDER BY type, id`, of)
	require.NoError(t, err)
	var typ string
	var id int64
	_, err = pgx.ForEachRow(records, []any{&typ, &id}, func() error {
		ids = append(ids, candidate{id, typ, "records.id"})
		seen[fmt.Sprint(id)] = true
		return nil
	})
	require.NoError(t, err)
	for _, tab := range r.tables {
		if !tab.org || isPartition(tab.name) {
			continue
		}
		for _, c := range tab.all {
			if c.name == "version" || c.name == "sequence" || secretColumns()[tab.name+"."+c.name] != "" {
				continue
			}
			name := pgx.Identifier{c.name}.Sanitize()
			values, err := query[string](ctx, tx, fmt.Sprintf(`SELECT %[1]s::text FROM %[2]s WHERE org_id = $1 AND %[1]s IS NOT NULL
				EXCEPT SELECT %[1]s::text FROM %[2]s WHERE org_id <> $1 LIMIT 3`, name, tab.sql()), of)
			require.NoError(t, err)
			for _, text := range values {
				switch {
				case seen[text]:
				case c.kind == "bigint":
					var n int64
					_, err := fmt.Sscan(text, &n)
					require.NoError(t, err)
					ids = append(ids, candidate{n, "", tab.name + "." + c.name})
				case (c.kind == "text" || c.kind == "uuid") && !strings.Contains(text, secretMark) && len(text) < 100:
					keys = append(keys, candidate{text, "", tab.name + "." + c.name})
				}
				seen[text] = true
			}
		}
	}
	externals, err := query[string](ctx, tx, `SELECT external_id FROM sametick.records WHERE org_id = $1 AND external_id IS NOT NULL ORDER BY id`, of)
	require.NoError(t, err)
	for _, text := range externals {
		keys = append(keys, candidate{text, "", "records.external_id"})
	}
	return ids, keys
}

// nobodys is a value of the same form that nobody has: what is refused for its form takes no look-up.
func nobodys(c candidate) candidate {
	text, ok := c.value.(string)
	if !ok {
		return candidate{int64(987654321), c.of, "nobody"}
	}
	other := strings.Map(func(r rune) rune {
		switch {
		case r == 'f' || r == 'F': // hexadecimal stays so
			return r - 5
		case r == 'z' || r == 'Z':
			return r - 19
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
			return r + 1
		default:
			return r
		}
	}, text)
	return candidate{other, c.of, "nobody"}
}

// walk is one run over all that is offered.
type walk struct {
	*world
	// idsOf and keysOf are what to put into arguments: of the organisation acted on.
	ids, keys []candidate
	// ownIDs and ownKeys are B's.
	ownIDs, ownKeys []candidate
	found           []string
	calls           int
	statements      int
	// prepared is what A's own doings have added to the digest of its rows.
	prepared int64
}

func (w *walk) say(format string, args ...any) {
	w.found = append(w.found, fmt.Sprintf(format, args...))
}

// TestWalk acts as B on A's data by every argument of every method, over gRPC and over REST: the answer is
// the same as for what nobody has, was made by the same statements (so that its time tells nothing either),
// shows nothing of A and changes nothing of A. That an argument selects
// anything at all is shown by B's own data, for which the answer must differ.
func TestWalk(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := &walk{world: world}
	w.ids, w.keys = world.candidates(world.a.OrgID, world.b.OrgID)
	w.ownIDs, w.ownKeys = world.candidates(world.b.OrgID, world.a.OrgID)
	before := world.digest()
	for _, m := range world.methods {
		w.method(m)
	}
	if world.digest() != before+w.prepared {
		w.say("B has changed rows of A")
	}
	require.Empty(t, w.found, strings.Join(w.found, "\n"))
	require.Greater(t, w.statements, w.calls/2, "the spy hears nothing")
	t.Logf("%d methods, %d ids and %d texts of A, %d calls, %d statements", len(world.methods), len(w.ids), len(w.keys), w.calls, w.statements)
}

// TestWalkNotices is the control of TestWalk: B, given A's key, finds A's data by nearly every argument.
func TestWalkNotices(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := &walk{world: world}
	w.ids, w.keys = world.candidates(world.a.OrgID, world.b.OrgID)
	w.ids = slices.DeleteFunc(w.ids, func(c candidate) bool { return slices.Contains(world.vital(), fmt.Sprint(c.value)) })
	w.ownIDs, w.ownKeys = w.ids, w.keys
	ids, keys := slices.Clip(w.ids), slices.Clip(w.keys)
	thief := *world.a
	thief.own = maps.Clone(world.a.own)
	world.b = &thief
	for _, m := range world.methods {
		for _, a := range arguments(m.descriptor.Input(), nil) {
			if k := kind(a.field); k != isID && k != isKey || uncontrolled()[m.name+"."+a.String()]+tells()[m.name+"."+a.String()]+paired()[m.name+"."+a.String()] != "" {
				continue
			}
			w.found, w.ids, w.keys = nil, ids, keys
			if v := a.value(w.around(m, a)); v != nil { // such as a type that all have
				w.ids, w.keys = append(w.ids, candidate{v, "", "itself"}), append(w.keys, candidate{v, "", "itself"})
			}
			w.argument(m, a, kind(a.field))
			require.NotEmpty(t, w.found, "%s.%s: nothing notices", m.name, a)
		}
	}
}

// vital gives what A acts by, which it must not archive.
func (w *world) vital() []string {
	key, err := w.g.Admin.Query(w.t.Context(), `SELECT min(id)::text FROM sametick.api_keys WHERE org_id = $1`, w.a.OrgID)
	require.NoError(w.t, err)
	ids, err := pgx.CollectRows(key, pgx.RowTo[string])
	require.NoError(w.t, err)
	return append(ids, fmt.Sprint(w.a.OrgID), fmt.Sprint(w.a.UserID))
}

// digest is one number for all rows of A.
func (w *world) digest() (n int64) {
	ctx := w.t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(w.t, err)
	defer func() { require.NoError(w.t, tx.Rollback(ctx)) }()
	f, err := newFunctions(ctx, tx, w)
	require.NoError(w.t, err)
	require.NoError(w.t, tx.QueryRow(ctx, f.digest).Scan(&n))
	return n
}

func (w *walk) base(m *method) request { return baseOf(w.b, m) }

// around gives the request to put an argument's values into: that of the message which it stands in, if known_test.go
// has one, or the method's.
func (w *walk) around(m *method, a argument) request {
	for n := len(a.path) - 1; n > 0; n-- {
		if make, ok := requests()[m.name+" "+strings.Join(a.path[:n], ".")]; ok {
			return make(w.b)
		}
	}
	return w.base(m)
}

func baseOf(s *side, m *method) request {
	if make, ok := requests()[m.name]; ok {
		return make(s)
	}
	return request{}
}

func (w *walk) method(m *method) {
	for way, call := range w.b.transports(m) {
		r := w.base(m)
		said := call(m, r)
		if _, known := away()[m.name]; known && !said.ok {
			return
		}
		if !said.ok {
			w.say("%s over %s cannot be exercised: %v is answered %s %s; give it a request that succeeds, requests in known_test.go", m.name, way, r, said.code, said.text)
			return
		}
		w.leaks(m.name+" over "+way, said)
	}
	w.replay(m)
	for _, a := range arguments(m.descriptor.Input(), nil) {
		switch k := kind(a.field); k {
		case isPlain:
		case "":
			w.say("%s.%s: say whether it selects data, plainFields or keyFields in known_test.go", m.name, a)
		case isCursor:
			w.cursor(m, a)
		case isAttributes:
			w.attributes(m, a)
		default:
			w.argument(m, a, k)
		}
	}
}

// replay sends as B a request that would succeed for A, whose values belong together, and one of nobody's.
func (w *walk) replay(m *method) {
	for way, call := range w.b.transports(m) {
		empty := w.digest()
		of := baseOf(w.a, m)
		before := w.digest()
		w.prepared += before - empty
		nobody, sent := of, []any{}
		for _, a := range arguments(m.descriptor.Input(), nil) {
			switch v := a.value(of); {
			case v == nil:
			case slices.Contains(credentialFields(), string(a.field.Name())):
				return // which A's are for A to keep
			case kind(a.field) == isID, kind(a.field) == isKey && strings.HasSuffix(string(a.field.FullName()), "id"):
				sent = append(sent, v)
				nobody = a.set(nobody, nobodys(candidate{value: w.whole(v)}))
			}
		}
		if len(sent) == 0 || of[asKey] != nil {
			return
		}
		got, none := call(m, of), call(m, nobody)
		w.calls += 2
		where := m.name + " over " + way + ", as A would ask it"
		if x, y := shape(got, sent...), shape(none, int64(987654321)); x != y {
			w.say("%s: answers\n\t%s\nnot, as for what nobody has,\n\t%s", where, x, y)
		}
		w.leaks(where, got)
		if w.digest() != before {
			w.say("%s: changes rows of A", where)
		}
	}
}

// whole is an id as a number, which JSON has made a float.
func (w *walk) whole(v any) any {
	if f, ok := v.(float64); ok {
		return int64(f)
	}
	return v
}

// argument puts A's values into one argument and compares.
func (w *walk) argument(m *method, a argument, kind string) {
	foreign, own := w.ids, w.ownIDs
	if kind == isKey {
		foreign, own = w.keys, w.ownKeys
	}
	ways := slices.Sorted(maps.Keys(w.b.transports(m)))
	for n, way := range ways {
		call := w.b.transports(m)[way]
		none, plan := map[string]string{}, map[string][]string{}
		var ran []string
		ask := func(c candidate) (string, said) {
			r := a.set(w.around(m, a), c)
			w.spy.take()
			said := call(m, r)
			ran = w.spy.take()
			w.statements += len(ran)
			w.calls++
			return shape(said, c.value), said
		}
		nothing := func(c candidate) (key string) {
			nobodys := nobodys(c)
			key = plain(nobodys.value) + " " + c.of
			if _, ok := none[key]; !ok {
				none[key], _ = ask(nobodys)
				plan[key] = ran
			}
			return key
		}
		for i, c := range foreign {
			if !m.reads() && i%len(ways) != n {
				continue // what was once written cannot be written twice
			}
			key := nothing(c)
			got, said := ask(c)
			where := fmt.Sprintf("%s.%s over %s, %s of A", m.name, a, way, c.source)
			if got != none[key] && tells()[m.name+"."+a.String()] == "" {
				w.say("%s: answers\n\t%s\nnot, as for what nobody has,\n\t%s", where, got, none[key])
			}
			for range 3 { // a look-up that a cache saves now and then is no difference
				if slices.Equal(ran, plan[key]) || said.ok && !m.reads() {
					break
				}
				delete(none, key)
				nothing(c)
				_, said = ask(c)
			}
			if !slices.Equal(ran, plan[key]) && tells()[m.name+"."+a.String()] == "" && (!said.ok || m.reads()) {
				w.say("%s: asks the database %q, and for what nobody has %q, which takes another time", where, ran, plan[key])
			}
			w.leaks(where, said)
		}
		if base := w.around(m, a); a.given(base) {
			// Its own value is the one that succeeds, and others could archive what B acts by.
			own := candidate{a.value(base), "", "itself"}
			key := nothing(own)
			if shape(call(m, base), own.value) == none[key] && uncontrolled()[m.name+"."+a.String()] == "" {
				w.say("%s.%s over %s: B's own value makes no difference to %s; see requests in known_test.go", m.name, a, way, none[key])
			}
			continue
		}
		matters := slices.ContainsFunc(own, func(c candidate) bool {
			key := nothing(c)
			got, _ := ask(c)
			return got != none[key]
		})
		if !matters && uncontrolled()[m.name+"."+a.String()] == "" {
			w.say("%s.%s over %s: no value of B's own makes a difference; give it a request in which one does, requests in known_test.go", m.name, a, way)
		}
	}
}

// leaks finds A's texts in an answer, and its id where it says whose something is.
func (w *walk) leaks(where string, s said) {
	if strings.Contains(s.text+s.head, secretMark) && w.b.OrgID != w.a.OrgID {
		w.say("%s: shows a text of A: %s %s", where, s.head, s.text)
	}
	if regexp.MustCompile(fmt.Sprintf(`"org_id":\s*%d\b`, w.a.OrgID)).MatchString(s.text) {
		w.say("%s: shows what is A's: %s", where, s.text)
	}
}

// cursor takes a cursor of A's to B.
func (w *walk) cursor(m *method, a argument) {
	// A's asking is A's doing: it may stamp when A's key was last used.
	asked := w.digest()
	first := w.a.grpc(m, with(baseOf(w.a, m), request{"limit": 1}))
	w.prepared += w.digest() - asked
	var page struct {
		Next *string `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(first.text), &page); err != nil || page.Next == nil || *page.Next == "" {
		w.say("%s.%s: no cursor in a page of one: %s %s", m.name, a, first.code, first.text)
		return
	}
	for way, call := range w.b.transports(m) {
		s := call(m, a.set(w.base(m), candidate{*page.Next, "", "cursor"}))
		w.calls++
		w.leaks(m.name+"."+a.String()+" over "+way+" with a cursor of A", s)
	}
}

// shape is an answer without what differs from call to call: ids, times and secrets, and what was asked for.
func shape(s said, sent ...any) string {
	body := s.text
	var v any
	lines := []string{}
	for line := range strings.Lines(body) {
		if json.Unmarshal([]byte(line), &v) == nil {
			line = text(masked(v))
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	// What was drawn for the request is another each time.
	out := regexp.MustCompile(`"kind_\d+_of_\d+"`).ReplaceAllString(s.code+" "+strings.Join(lines, "\n"), `"…"`)
	for _, v := range sent {
		if _, ok := v.(string); ok {
			out = strings.ReplaceAll(out, plain(v), "…")
		} else {
			out = regexp.MustCompile(`\b`+plain(v)+`\b`).ReplaceAllString(out, "…")
		}
	}
	return out
}

func masked(v any) any {
	switch v := v.(type) {
	case request:
		out := request{}
		for key, member := range v {
			switch {
			case key == "request_id":
			case regexp.MustCompile(`(^|_)ids?$|^(roles|sequence|version|access_token|refresh_token|secret|prefix|.*cursor|.*hash)$`).MatchString(key):
				if id, ok := member.(string); ok && regexp.MustCompile(`^\d+$`).MatchString(id) {
					member = "…"
				} else if _, ok := member.(float64); ok || key == "prefix" || key == "secret" || strings.HasSuffix(key, "token") {
					member = "…"
				}
				out[key] = masked(member)
			default:
				out[key] = masked(member)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = masked(v[i])
		}
		return out
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			return "time"
		}
		return v
	default:
		return v
	}
}

// reference is a property of a type's attributes that holds ids of records, or a list of them.
type reference struct {
	of, property, to string
	list             bool
}

// references reads the schemas of all types that B has.
func (w *walk) references() (out []reference) {
	for _, typ := range w.b.must("TypeService.ListTypes", request{})["data"].([]any) {
		schema, _ := typ.(request)["schema"].(request)
		properties, _ := schema["properties"].(request)
		for name, property := range properties {
			p, _ := property.(request)
			items, _ := p["items"].(request)
			for _, holder := range []request{p, items} {
				if to, ok := holder["x-reference"].(string); ok {
					out = append(out, reference{typ.(request)["name"].(string), name, to, holder["type"] == items["type"] && items != nil})
				}
			}
		}
	}
	require.NotEmpty(w.t, out)
	return out
}

// attributes puts A's ids into the properties of attributes that refer to records, and A's types into schemas.
func (w *walk) attributes(m *method, a argument) {
	if a.field.Name() == "schema" {
		w.schemas(m, a)
		return
	}
	for way, call := range w.b.transports(m) {
		for _, ref := range w.references() {
			base := w.around(m, a)
			changes := a.path[len(a.path)-1] == "attributes" && strings.Contains(strings.ToLower(m.name+a.String()), "update")
			only, fixed := attributesOf()[m.name]
			if changes && base["type"] != ref.of || fixed && ref.of != only {
				continue
			}
			ask := func(id any) (string, []string) {
				v := id
				if ref.list {
					v = []any{id}
				}
				r := a.set(w.around(m, a), candidate{request{ref.property: v}, "", ""})
				if !fixed {
					r["type"] = ref.of
				}
				w.spy.take()
				said := call(m, r)
				w.calls++
				w.leaks(m.name+"."+a.String()+" over "+way, said)
				return shape(said, id), w.spy.take()
			}
			none, plan := ask(int64(987654321))
			where := fmt.Sprintf("%s.%s over %s, %s.%s", m.name, a, way, ref.of, ref.property)
			for _, c := range w.ids {
				got, ran := ask(c.value)
				for range 3 { // a look-up that a cache saves now and then is no difference
					if slices.Equal(ran, plan) {
						break
					}
					none, plan = ask(int64(987654321))
					got, ran = ask(c.value)
				}
				if got != none || !slices.Equal(ran, plan) {
					w.say("%s, %s of A: answers\n\t%s %q\nnot, as for what nobody has,\n\t%s %q", where, c.source, got, ran, none, plan)
				}
			}
			if w.b.own[ref.to] != 0 {
				if got, _ := ask(w.b.own[ref.to]); got == none {
					w.say("%s: B's own %s makes no difference to %s", where, ref.to, none)
				}
			}
		}
	}
}

// schemas refers to A's types. A schema may name a type that there is not yet, so nothing makes a difference.
func (w *walk) schemas(m *method, a argument) {
	for way, call := range w.b.transports(m) {
		ask := func(typ any) string {
			v := request{"type": "object", "properties": request{"ref_id": request{"type": "integer", "x-reference": typ}}}
			said := call(m, a.set(w.around(m, a), candidate{v, "", ""}))
			w.calls++
			return shape(said, typ)
		}
		for _, c := range w.keys {
			if got, none := ask(c.value), ask(nobodys(c).value); got != none {
				w.say("%s.%s over %s, %s of A: answers\n\t%s\nnot, as for what nobody has,\n\t%s", m.name, a, way, c.source, got, none)
			}
		}
	}
}

// TestMarks: A's texts stand in every column that can hold one, so that a leak of any would show.
func TestMarks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	tx, err := w.g.Admin.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	r, err := newRows(ctx, tx, w.a.OrgID, w.b.OrgID)
	require.NoError(t, err)
	for _, tab := range r.tables {
		if !tab.org || isPartition(tab.name) {
			continue
		}
		for _, c := range tab.columns {
			name := tab.name + "." + c.name
			if !slices.Contains([]string{"text", "jsonb", "text[]"}, c.kind) || unmarked()[name] != "" || secretColumns()[name] != "" {
				continue
			}
			n, err := query[int64](ctx, tx, fmt.Sprintf(`SELECT count(*) FROM %s WHERE org_id = $1 AND %s::text ~ '%s'`,
				tab.sql(), pgx.Identifier{c.name}.Sanitize(), secretMark), w.a.OrgID)
			require.NoError(t, err)
			require.NotZero(t, n[0], "no text of A's in %s: plant one, or name it in unmarked, known_test.go", name)
		}
	}
}
