package jwt

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// differs are the vectors that we answer otherwise than they say, and why.
var differs = map[string]map[int]string{
	"json_web_signature_test.json": {
		346: "the key is for PS256, the token says PS384: RFC 7520 4.2 has a key for both, and this one is bound to one (RFC 7517 4.4)",
		350: "as 346",
		347: "the key names ES521, which is no algorithm (RFC 7518 3.1: ES512)",
		351: "the key names ES521, which is no algorithm (RFC 7518 3.1: ES512)",
		367: "the padding got lost: the text is that of 357, which is valid",
		370: "the padding got lost: the text is that of 357, which is valid",
		372: "a question mark stands in the base64 text of the header: it was a character that the file has lost, and RFC 7515 2 allows neither",
		373: "a question mark stands in the base64 text of the payload: it was a character that the file has lost, and RFC 7515 2 allows neither",
	},
}

type vectors struct {
	NumberOfTests int `json:"numberOfTests"`
	TestGroups    []struct {
		Comment         string
		Public, Private json.RawMessage
		Tests           []struct {
			ID      int `json:"tcId"`
			Comment string
			Result  string
			JWS     json.RawMessage
		}
	}
}

// Signatures and keys are judged as Project Wycheproof says. Its payloads are no claims, so what stands around the signature is put together
// here from the same parts that Authenticate uses.
func TestWycheproofVectors(t *testing.T) {
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		text, err := os.ReadFile("testdata/wycheproof/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var all vectors
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		ran, valid := 0, 0
		for _, group := range all.TestGroups {
			keys := group.Public
			if keys == nil {
				keys = group.Private // a shared secret
			}
			for _, c := range group.Tests {
				var jws string
				if json.Unmarshal(c.JWS, &jws) != nil {
					jws = string(c.JWS) // JSON serialization
				}
				want := c.Result == "valid"
				if why := differs[file][c.ID]; why != "" {
					want = !want
				}
				if got, why := accepts(keys, jws); got != want {
					t.Errorf("%s %s %d (%s): accepted %v (%s), want %v", file, group.Comment, c.ID, c.Comment, got, why, want)
				}
				ran++
				if want {
					valid++
				}
			}
		}
		if ran != all.NumberOfTests || valid == 0 {
			t.Errorf("%s: %d of %d vectors ran, %d are valid", file, ran, all.NumberOfTests, valid)
		}
	}
}

func accepts(keys json.RawMessage, jws string) (bool, string) {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{}
	if json.Unmarshal(keys, &set); set.Keys == nil {
		set.Keys = []json.RawMessage{keys}
	}
	var first struct{ Kty string }
	json.Unmarshal(set.Keys[0], &first)
	text, _ := json.Marshal(set)
	parsed, err := parseSet(text, first.Kty == "oct")
	if err != nil {
		return false, err.Error()
	}
	if strings.Count(jws, ".") != 2 {
		return false, "no three parts"
	}
	// The payloads of the vectors are no JSON. One that is stands in for them while the rest is parsed.
	parts := strings.Split(jws, ".")
	if _, err := decode(parts[1]); err != nil {
		return false, err.Error()
	}
	tok, err := parse(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{}")) + "." + parts[2])
	if err != nil {
		return false, err.Error()
	}
	tok.signed = []byte(parts[0] + "." + parts[1])
	if algorithmOf(tok.header.Algorithm) == nil {
		return false, "no algorithm of ours: " + tok.header.Algorithm
	}
	v := &verifier{keys: inline{parsed}}
	if _, err := v.verifySignature(nil, tok, parsed); err != nil {
		return false, err.Error()
	}
	return true, ""
}

// What we refuse only for the name of an algorithm verifies once the key has the right one.
func TestTheVectorsWithAWrongNameVerifyUnderTheRightOne(t *testing.T) {
	text, err := os.ReadFile("testdata/wycheproof/json_web_signature_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	right := strings.NewReplacer(`"ES521"`, `"ES512"`, `"PS256"`, `"PS384"`)
	n := 0
	for _, group := range all.TestGroups {
		for _, c := range group.Tests {
			if c.ID != 346 && c.ID != 347 && c.ID != 350 && c.ID != 351 {
				continue
			}
			var jws string
			json.Unmarshal(c.JWS, &jws)
			if ok, why := accepts(json.RawMessage(right.Replace(string(group.Public))), jws); !ok {
				t.Errorf("%d: %s", c.ID, why)
			}
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d vectors", n)
	}
}
