package property_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"
)

// operation is one method of one path of the document.
type operation struct {
	method, path string
	*openapi3.Operation
	parameters openapi3.Parameters
	// public ones need no token.
	public bool
}

func (o *operation) String() string { return o.method + " " + o.path }

// body is the schema of the JSON body; nil for none.
func (o *operation) body() (schema *openapi3.SchemaRef, required bool) {
	if o.RequestBody == nil || o.RequestBody.Value == nil {
		return nil, false
	}
	if media := o.RequestBody.Value.Content.Get("application/json"); media != nil {
		return media.Schema, o.RequestBody.Value.Required
	}
	return nil, false
}

// call is one request that was made up.
type call struct {
	op     *operation
	method string
	// path are the values of its variables, query and headers what the document names.
	path, query, headers map[string]string
	json                 any
	// text is the body as it is sent; nil for none.
	text []byte
	// raw is what follows the query, unescaped.
	raw string
	// broken says in what way the request is not what the document asks for; empty when it is. Where lenient,
	// a server may take it all the same.
	broken  string
	lenient bool
}

func (c *call) String() string {
	target := c.target()
	return fmt.Sprintf("%s %s %v %.300q (%s)", c.method, target, c.headers, c.text, c.broken)
}

func (c *call) target() string {
	path := c.op.path
	for name, v := range c.path {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(v))
	}
	q := url.Values{}
	for name, v := range c.query {
		q.Set(name, v)
	}
	text := q.Encode() + c.raw
	if text == "" {
		return path
	}
	return path + "?" + text
}

// valid makes a request that the document allows; false when it needs something that nobody has seen yet.
func (g *generator) valid(o *operation) (*call, bool) {
	c := &call{op: o, method: o.method, path: map[string]string{}, query: map[string]string{}, headers: map[string]string{}}
	known, _ := g.seen.of(g, o)
	for _, ref := range o.parameters {
		p := ref.Value
		switch {
		case p.In == openapi3.ParameterInPath:
			v := g.value(p.Name, p.Schema, 0)
			if inner, ok := known[strings.TrimSuffix(p.Name, "_id")+"s"].([]any); ok && len(inner) > 0 {
				first, _ := pick(g, inner).(object)
				v = first["id"]
			} else if known != nil && known[last(p.Name)] != nil {
				v = known[last(p.Name)]
			}
			if v == unknown || v == "" {
				return nil, false
			}
			c.path[p.Name] = flat(v)
			if strings.ContainsAny(c.path[p.Name], "/\x00") {
				return nil, false // another path
			}
		case !p.Required && g.likely(65):
		default:
			v := g.value(p.Name, p.Schema, 0)
			if v == unknown || v == nil {
				if p.Required {
					return nil, false
				}
				continue
			}
			if list, ok := v.([]any); ok {
				if len(list) == 0 {
					continue
				}
				v = list[0]
			}
			if p.In == openapi3.ParameterInQuery {
				c.query[p.Name] = flat(v)
			} else if p.In == openapi3.ParameterInHeader {
				c.headers[p.Name] = header(flat(v))
			}
		}
	}
	if schema, required := o.body(); schema != nil && (required || g.likely(80)) {
		c.json = g.value("", schema, 0)
		if c.json == unknown || schema.Value.VisitJSON(plain(c.json), openapi3.VisitAsRequest()) != nil {
			return nil, false
		}
		c.text = encode(c.json)
	}
	return c, true
}

// last is the part of a parameter's name that an object has it by: aggregate_id is its id.
func last(name string) string {
	if strings.HasSuffix(name, "_id") {
		return "id"
	}
	return strings.TrimPrefix(name, "aggregate_")
}

// of gives something seen that the variables of a path may mean: of the type that the path names.
func (m *memory) of(g *generator, o *operation) (object, bool) {
	fits := slices.DeleteFunc(slices.Clone(m.objects), func(known object) bool {
		from, _ := known[origin].(string)
		return !strings.HasPrefix(o.path, from)
	})
	if len(fits) == 0 {
		return nil, false
	}
	return pick(g, fits), true
}

// origin is the key under which the memory keeps where an object was seen: the path up to its first variable.
const origin = "\x00origin"

func header(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return 'x'
		}
		return r
	}, s)
}

func flat(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v))
		}
	}
	return fmt.Sprint(v)
}

// plain is a value as a JSON decoder gives it.
func plain(v any) (out any) {
	if err := json.Unmarshal(encode(v), &out); err != nil {
		return err.Error()
	}
	return out
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}

func matching(g *generator, pattern string) string {
	return rapid.StringMatching(pattern).Example(int(g.Uint32()))
}

// breakIt makes a request in one way what the document does not allow.
func (g *generator) breakIt(c *call) bool {
	ways := []func(*call) bool{g.breakPath, g.breakQuery, g.breakMethod, g.breakToken}
	if c.text != nil {
		ways = append(ways, g.breakText, g.breakText, g.breakMember, g.breakMember, g.breakMember, g.breakMember)
	}
	return pick(g, ways)(c)
}

func (g *generator) breakPath(c *call) bool {
	for _, ref := range c.op.parameters {
		p := ref.Value
		if p.In != openapi3.ParameterInPath || p.Schema == nil || p.Schema.Value.Type == nil || !p.Schema.Value.Type.Is("integer") {
			continue
		}
		c.path[p.Name] = pick(g, []string{"abc", "1.5", "9223372036854775808", "-9223372036854775809", "0x1", "１", " 1", "1 ", "NaN", "\x00", "ä", strings.Repeat("9", 4000)})
		c.broken = "a path that is no number"
		return true
	}
	return false
}

func (g *generator) breakQuery(c *call) bool {
	switch g.IntN(4) {
	case 0:
		c.query["no_such_parameter"] = pick(g, words())
		c.broken, c.lenient = "an unknown parameter", true
		return true
	case 1:
		c.raw = pick(g, []string{"&%zz", "&a=%", "&;", "&\u00e4=%ff"})
		c.broken, c.lenient = "a malformed query", true
		return true
	}
	for _, ref := range c.op.parameters {
		p := ref.Value
		if p.In != openapi3.ParameterInQuery || p.Schema == nil || p.Schema.Value.Type == nil {
			continue
		}
		switch s := p.Schema.Value; {
		case s.Type.Is("integer") && s.Max != nil && g.likely(40):
			c.query[p.Name] = fmt.Sprint(int64(*s.Max) + 1)
		case s.Type.Is("integer") && s.Min != nil && g.likely(40):
			c.query[p.Name] = fmt.Sprint(int64(*s.Min) - 1)
		case s.Type.Is("integer"):
			c.query[p.Name] = pick(g, []string{"", "x", "1e3", "99999999999999999999", "１"})
		case s.Type.Is("boolean"):
			c.query[p.Name] = pick(g, []string{"", "yes", "2", "TRUE?"})
		case s.Type.Is("string") && len(s.Enum) > 0:
			c.query[p.Name] = "none-of-these"
		case s.Type.Is("string"):
			c.query[p.Name] = "a\x00b"
		default:
			continue
		}
		if g.likely(60) {
			c.broken = "parameter " + p.Name
			return true
		}
		c.broken = "parameter " + p.Name
	}
	return c.broken != ""
}

func (g *generator) breakMethod(c *call) bool {
	c.method = pick(g, []string{"PUT", "TRACE", "PROPFIND", "OPTIONS", "X"})
	c.broken, c.lenient = wrongMethod, true
	return true
}

const hugeBody = "a huge body"

const wrongMethod = "a method that the path does not have"

func (g *generator) breakToken(c *call) bool {
	if c.op.public {
		return false
	}
	c.headers["Authorization"] = pick(g, []string{"Bearer x", "Bearer stk_" + strings.Repeat("a", 43), "Basic eDp5", "Bearer " + strings.Repeat("e", 9000), "Bearer", "\xff"})
	c.broken = "a wrong token"
	return true
}

// breakText breaks the body as text.
func (g *generator) breakText(c *call) bool {
	switch g.IntN(8) {
	case 0:
		c.text = c.text[:len(c.text)-1-g.IntN(min(5, len(c.text)-1))] // nothing at all is allowed where no body is required
		c.broken = "a body cut off"
	case 1:
		c.text = append([]byte(`{"\ud800":1,`), c.text[1:]...)
		c.broken = "half a surrogate pair"
	case 2:
		c.text = bytes.Replace(c.text, []byte(`{`), []byte("{\"\xff\":1,"), 1)
		c.broken = "a body that is not UTF-8"
	case 3:
		size := 3 << 20
		if strings.HasSuffix(c.op.path, ":batch") { // 16 MiB
			size = 17 << 20
		}
		c.text = append(bytes.Repeat([]byte(" "), size), c.text...)
		c.broken = hugeBody
	case 4:
		c.text = []byte(pick(g, []string{`[]`, `"x"`, `1`, `true`, `nul`, `{`, `}`, ` `, `{"a":1}{"a":1}`, strings.Repeat(`{"a":`, 20000), strings.Repeat("[", 100000)}))
		c.broken = "another value"
	case 5:
		c.text = append([]byte(`{"twice":1,"twice":2,`), c.text[1:]...)
		c.broken = "a key that occurs twice"
	case 6:
		c.text = append([]byte(`{"no_such_field":1,`), c.text[1:]...)
		if len(c.text) == len(`{"no_such_field":1,}`) {
			c.text = []byte(`{"no_such_field":1}`)
		}
		c.broken = "an unknown field"
	default:
		c.headers["Content-Type"] = pick(g, []string{"text/plain", "application/xml", "multipart/form-data", "", "application/json; charset=utf-16", "\"", "application/x-www-form-urlencoded"})
		c.broken, c.lenient = "another content type", true
	}
	return true
}

// breakMember breaks one member of the body by its schema.
func (g *generator) breakMember(c *call) bool {
	schema, _ := c.op.body()
	members, ok := c.json.(object)
	if !ok || schema.Value == nil || len(schema.Value.Properties) == 0 {
		return false
	}
	members = maps.Clone(members)
	name := pick(g, slices.Sorted(maps.Keys(schema.Value.Properties)))
	if slices.Contains(schema.Value.Required, name) && g.likely(30) {
		delete(members, name)
	} else {
		members[name] = g.wrong(schema.Value.Properties[name].Value)
	}
	if schema.Value.VisitJSON(plain(members), openapi3.VisitAsRequest()) == nil {
		return false
	}
	c.json, c.text = members, encode(members)
	// null says of a field that it is not given.
	given, ok := members[name]
	c.broken, c.lenient = "field "+name, ok && given == nil && !slices.Contains(schema.Value.Required, name)
	return true
}

func (g *generator) wrong(s *openapi3.Schema) any {
	options := []any{"x", "", "a\x00b", 1.5, -1, 0, json.Number("1e400"), json.Number("9223372036854775808"), true, []any{}, []any{nil}, []any{object{}}, object{}, object{"x": 1}, nil,
		strings.Repeat("é", 100000)}
	if s != nil && s.MaxLength != nil {
		options = append(options, strings.Repeat("é", int(*s.MaxLength)+1))
	}
	if s != nil && s.Max != nil {
		options = append(options, *s.Max+1)
	}
	return pick(g, options)
}

// request makes the HTTP request.
func (c *call) request(base, token string) (*http.Request, error) {
	req, err := http.NewRequest(c.method, base+c.target(), bytes.NewReader(c.text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if !c.op.public {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for name, v := range c.headers {
		req.Header[http.CanonicalHeaderKey(name)] = []string{v}
	}
	return req, nil
}
