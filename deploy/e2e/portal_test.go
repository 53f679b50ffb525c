package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// markup is what a page must show and not take for its own.
const markup = `<img src=x onerror="document.title='taken'"><b>Orders</b>`

// testPortal makes a link by REST, uses its token for what it is for and for what it is not, and then does in a browser
// what the page is for.
func testPortal(t *testing.T, b *bench) {
	var session struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	status, text, err := b.ask(t.Context(), http.MethodPost, "/api/auth/login", "", map[string]string{"email": b.Secrets.Email, "password": b.Secrets.Password}, &session)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	p := &portal{t: t, bench: b}
	p.receiver = httptest.NewServer(http.HandlerFunc(p.receive))
	defer p.receiver.Close()

	// p.token is of the link from here on; what is made before is made by the session's.
	p.token = session.AccessToken
	good := p.endpoint("/good", markup)
	bad := p.endpoint("/bad", "Invoices")
	link := p.link(nil)
	limited := p.link([]int64{bad})
	require.True(t, strings.HasPrefix(link, b.URL+"/api/portal/#token="), link)
	address, token, _ := strings.Cut(link, "#token=")
	p.token = token
	require.ElementsMatch(t, []int64{good, bad}, p.endpoints())
	for method, path := range map[string]string{"GET": "/api/records/task", "POST": "/api/records/task", "DELETE": "/api/users/1"} {
		status, text, err := b.ask(t.Context(), method, path, token, map[string]any{"name": "x"}, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, status, text)
		require.Contains(t, text, "PORTAL_TOKEN")
	}
	_, p.token, _ = strings.Cut(limited, "#token=")
	require.Equal(t, []int64{bad}, p.endpoints())
	status, text, err = b.ask(t.Context(), http.MethodGet, fmt.Sprintf("/api/webhooks/endpoints/%d", good), p.token, nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status, text)
	p.token = token
	res, err := http.Get(address)
	require.NoError(t, err)
	page, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, string(page), "main.js")

	t.Run("in a browser", func(t *testing.T) { p.browse(t, link, limited, good, bad, session.RefreshToken) })
	p.t, p.token = t, b.Token
	for _, id := range p.endpoints() { // nothing more goes to a receiver that ends here
		p.call("DELETE", fmt.Sprintf("/api/webhooks/endpoints/%d", id), nil, nil)
	}
}

type portal struct {
	*bench
	t        *testing.T
	receiver *httptest.Server
	token    string
	secret   string // when set, requests to /new must be signed by it
}

// receive takes what comes at /good and /new, and answers /bad with markup.
func (p *portal) receive(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path == "/new" {
		wh, err := webhooks.NewWebhook(p.secret)
		if err != nil || wh.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return
	}
	if r.URL.Path == "/bad" {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, markup)
	}
}

func (p *portal) call(method, path string, body, out any) {
	p.t.Helper()
	status, text, err := p.ask(p.t.Context(), method, path, p.token, body, out)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusOK, status, "%s %s: %s", method, path, text)
}

func (p *portal) endpoint(path, description string) int64 {
	p.t.Helper()
	var made struct{ Endpoint struct{ ID int64 } }
	p.call("POST", "/api/webhooks/endpoints", map[string]any{"url": p.receiver.URL + path, "description": description, "event_types": []string{"task.post_create"}}, &made)
	return made.Endpoint.ID
}

func (p *portal) endpoints() (ids []int64) {
	var list struct{ Data []struct{ ID int64 } }
	p.call("GET", "/api/webhooks/endpoints", nil, &list)
	for _, e := range list.Data {
		ids = append(ids, e.ID)
	}
	return ids
}

func (p *portal) link(ids []int64) string {
	p.t.Helper()
	var made struct{ URL string }
	p.call("POST", "/api/webhooks/portal", map[string]any{"endpoint_ids": ids, "ttl": 600}, &made)
	return made.URL
}

// field reads one of an endpoint.
func (p *portal) field(id int64, name string) any {
	p.t.Helper()
	var e map[string]any
	p.call("GET", fmt.Sprintf("/api/webhooks/endpoints/%d", id), nil, &e)
	return e[name]
}

func (p *portal) browse(t *testing.T, link, limited string, good, bad int64, refresh string) {
	c := browse(t)
	p.t = t
	for i := range 3 {
		p.create(t, fmt.Sprintf("for the portal %d", i))
	}
	fits := func(name string) {
		t.Helper()
		for _, look := range []struct {
			name, scheme string
			width        int
		}{{"light", "light", 1100}, {"dark", "dark", 1100}, {"phone", "light", 390}, {"phone-dark", "dark", 390}} {
			c.scheme(look.scheme)
			c.size(look.width, 844)
			c.shot(name + "-" + look.name)
			require.Equal(t, true, c.eval(`document.documentElement.scrollWidth <= innerWidth`), "%s is wider than %d", name, look.width)
		}
		c.scheme("light")
		c.size(1100, 900)
	}

	c.open(link)
	c.until("the numbers of both", `document.querySelectorAll("a.card dl.stats").length === 2`)
	require.Equal(t, "#/", c.eval(`location.hash`), "the address no longer has the token")
	require.Equal(t, true, c.eval(fmt.Sprintf(`[...document.querySelectorAll("a.card strong")].some(e => e.textContent === %q)`, markup)))
	require.Equal(t, []any{float64(0), "Endpoints – Webhooks"}, c.eval(`[document.images.length, document.title]`), "text is no markup")
	c.text("Link works until")
	await(t, "their deliveries", func() bool {
		var a, b struct{ Attempts int }
		p.call("GET", fmt.Sprintf("/api/webhooks/endpoints/%d/stats", good), nil, &a)
		p.call("GET", fmt.Sprintf("/api/webhooks/endpoints/%d/stats", bad), nil, &b)
		return a.Attempts == 3 && b.Attempts >= 3
	})
	c.reload()
	c.until("the numbers of both", `document.querySelectorAll("a.card dl.stats").length === 2 && document.body.innerText.includes("100 %")`)
	fits("overview")

	// By the keyboard alone: to the form, and back by its link.
	c.eval(`document.activeElement.blur()`)
	for range 20 {
		c.key("Tab", "Tab", 9)
		if c.eval(`document.activeElement.innerText`) == "Add endpoint" {
			break
		}
	}
	require.Equal(t, "Add endpoint", c.eval(`document.activeElement.innerText`))
	c.key("Enter", "Enter", 13)
	c.until("the form", `document.activeElement.name === "url"`)

	// A new endpoint: what is wrong is said beside its field, the secret is shown, once.
	c.fill("url", "https://169.254.169.254/")
	c.fill("filter", "event.")
	c.press("Add endpoint")
	c.until("both faults", `document.querySelectorAll("[aria-invalid=true]").length === 2 && document.activeElement.name === "url"`)
	fits("form-faults")
	c.fill("url", p.receiver.URL+"/new")
	c.fill("filter", "")
	c.fill("headers", "X-Key: value\nX-Other: two")
	c.fill("event_types", "task.*\n*.post_archive")
	c.press("Add endpoint")
	c.until("the secret", `document.querySelector("dialog[open] .secret") !== null`)
	fits("secret")
	p.secret, _ = c.eval(`document.querySelector("dialog .secret").textContent`).(string)
	require.True(t, strings.HasPrefix(p.secret, "whsec_"))
	c.press("I have stored it")
	c.text("No deliveries.")
	require.Equal(t, false, c.eval(fmt.Sprintf(`document.documentElement.outerHTML.includes(%q)`, p.secret)), "it is gone")
	made := p.endpoints()[0]
	require.Equal(t, map[string]any{"X-Key": "value", "X-Other": "two"}, p.field(made, "headers"))

	// A test event comes, signed by that secret; its attempt shows what was sent.
	c.press("Send test")
	c.until("the test's delivery", `[...document.querySelectorAll("details.delivery summary")].some(e => e.innerText.includes("webhook_endpoint.test") && e.innerText.includes("delivered"))`)
	c.eval(`document.querySelector("details.delivery > summary").click()`)
	c.text("Attempt 1")
	c.press("Request and response")
	c.text("Webhook-Signature")
	c.text("HTTP 200")

	// Changing it.
	c.press("Edit")
	c.fill("description", "The new one")
	c.fill("rate_limit", "7")
	c.press("Save")
	c.until("its name", `document.querySelector("h1").textContent === "The new one"`)
	require.InDelta(t, 7, p.field(made, "rate_limit"), 0)
	require.Equal(t, map[string]any{"X-Key": "value", "X-Other": "two"}, p.field(made, "headers"), "what was not touched stays")
	c.press("Edit")
	c.fill("rate_limit", "")
	c.press("Save")
	c.press("Disable")
	c.until("the question", `document.querySelector("dialog[open]") !== null`)
	fits("question")
	c.press("Cancel")
	require.Equal(t, true, p.field(made, "enabled"), "asked and not done")
	require.Nil(t, p.field(made, "rate_limit"), "an emptied field is cleared")
	c.press("Disable")
	c.until("the question", `document.querySelector("dialog[open]") !== null`)
	c.eval(`[...document.querySelectorAll("dialog button")].find(e => e.innerText === "Disable").click()`)
	c.press("Enable")
	c.press("Send test")
	c.press("New secret")
	c.press("Make a new secret")
	c.until("another secret", fmt.Sprintf(`(s => s && s.textContent.startsWith("whsec_") && s.textContent !== %q)(document.querySelector("dialog[open] .secret"))`, p.secret))
	c.press("I have stored it")
	c.press("Archive")
	c.until("the question", `document.querySelector("dialog[open]") !== null`)
	c.eval(`[...document.querySelectorAll("dialog button")].find(e => e.innerText === "Archive").click()`)
	c.press("Restore")
	c.until("it is back", `document.querySelector("h1 ~ .badge, h1 + .badge")?.innerText === "Enabled"`)
	require.Nil(t, p.field(made, "archived_at"))

	// What fails, and its answer, as text.
	c.eval(fmt.Sprintf(`location.hash = "#/%d"`, bad))
	c.until("what waits", `document.querySelectorAll("details.delivery").length === 3`)
	c.eval(`document.querySelector("details.delivery > summary").click()`)
	c.text("HTTP 500")
	c.press("Request and response")
	c.until("the answer", fmt.Sprintf(`[...document.querySelectorAll("pre")].some(e => e.textContent === %q)`, markup))
	require.Equal(t, float64(0), c.eval(`document.images.length`))
	fits("deliveries")
	c.eval(`(s => { s.value = "delivered"; s.dispatchEvent(new Event("change", {bubbles: true})); })(document.querySelector(".filters select"))`)
	c.text("No deliveries.")
	c.eval(`(s => { s.value = "pending"; s.dispatchEvent(new Event("change", {bubbles: true})); })(document.querySelector(".filters select"))`)
	c.until("what waits", `document.querySelectorAll("details.delivery").length === 3`)
	c.eval(`document.querySelector("details.delivery > summary").click()`)
	c.press("Skip")
	c.until("one less", `document.querySelectorAll("details.delivery").length === 2`)
	c.eval(`document.querySelector("details.delivery > summary").click()`)
	c.press("Send now")
	c.press("Recover failed")
	c.press("Send again")
	c.text("Recovering")
	c.eval(fmt.Sprintf(`location.hash = "#/%d"`, good))
	c.until("what came", `document.querySelectorAll("details.delivery").length === 3`)
	c.eval(`document.querySelector("details.delivery > summary").click()`)
	c.press("Redeliver")
	c.until("it is sent again", `document.querySelectorAll("details.delivery").length === 4`)

	// What the page has done without: complaints. The refusals of the form are the browser's to tell.
	for _, complaint := range c.complaints() {
		require.Contains(t, complaint, "status of 400", "of the form")
	}
	require.Equal(t, "blocked", c.eval(`(() => { try { document.body.innerHTML = "<b>x</b>"; return "open" } catch { return "blocked" } })()`), "the control: its policy holds")
	require.NotEmpty(t, c.complaints(), "the control: what it refuses is heard of")

	// A limited link shows its one, in the tab of the other link; then it is taken back.
	c.open(limited)
	c.until("one endpoint", `document.querySelectorAll("a.card").length === 1 && !document.body.innerText.includes("Add endpoint")`)
	status, text, err := p.ask(t.Context(), http.MethodPost, "/api/auth/logout", "", map[string]any{"refresh_token": refresh}, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, text)
	c.reload()
	c.text("This link no longer works")
	c.text("Ask whoever gave it to you for a new link.")
	fits("ended")
	require.Nil(t, c.eval(`sessionStorage.getItem("sametick-portal")`))
	c.open(strings.Split(link, "#")[0])
	c.text("Ask whoever gave it to you for a new link.")
}
