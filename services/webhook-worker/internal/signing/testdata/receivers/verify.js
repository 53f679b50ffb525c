// Reads requests as JSON lines {library, secret, id, timestamp, signature, body} and answers each with "accepted" or
// "refused: why". v1a is verified by Node's own crypto.
const readline = require("node:readline");
const crypto = require("node:crypto");
const libraries = { standardwebhooks: require("standardwebhooks").Webhook, svix: require("svix").Webhook };

function ed25519(r) {
  const raw = Buffer.from(r.secret.slice("whpk_".length), "base64");
  const key = crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
  const good = r.signature.split(" ").some((s) => s.startsWith("v1a,") &&
    crypto.verify(null, Buffer.from(`${r.id}.${r.timestamp}.${r.body}`), key, Buffer.from(s.slice(4), "base64")));
  if (!good) throw new Error("no matching signature");
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const r = JSON.parse(line);
  try {
    if (r.library === "crypto") ed25519(r);
    else new libraries[r.library](r.secret).verify(r.body, { "webhook-id": r.id, "webhook-timestamp": r.timestamp, "webhook-signature": r.signature });
    console.log("accepted");
  } catch (e) {
    console.log("refused: " + e.message);
  }
});
