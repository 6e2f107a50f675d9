package source

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	kyaml "sigs.k8s.io/yaml"
)

// document is one YAML document of a file, read twice: as nodes, which know their lines, and as the value that kubectl
// would have sent (it reads YAML 1.1, where a plain `on` is a boolean).
type document struct {
	root  *yaml.Node // a mapping; lines count from the document's begin
	value map[string]any
}

// part is the text of a document, and how many lines of the file come before it.
type part struct {
	offset int
	text   []byte
}

// splitDocuments cuts a file at the lines that begin or end a YAML document. The line `---` belongs to the document
// that follows it, as there may be content behind the dashes.
func splitDocuments(text []byte) []part {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // the byte order mark some editors write
	var parts []part
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		switch {
		case isMarker(text[at:end], "---"):
			parts = append(parts, part{startLine, text[start:at]})
			start, startLine = at, line
		case isMarker(text[at:end], "..."):
			parts = append(parts, part{startLine, text[start:at]})
			start, startLine = end, line+1
		}
		at = end
	}
	return append(parts, part{startLine, text[start:]})
}

// isMarker says whether a line is a document marker: YAML has them at the begin of a line, before white space or its end.
func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\n' || rest[0] == '\r')
}

// parse reads one document. It returns nil without problems for an empty one.
func parse(text []byte) (*document, []Problem) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, []Problem{brokenSyntax(text, err)}
	}
	if node.Kind == 0 || len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
		return nil, nil
	}
	root := node.Content[0]
	at := Problem{Line: root.Line, Column: root.Column}
	if root.Kind != yaml.MappingNode {
		at.Message = "not a Kubernetes object: a mapping with apiVersion and kind is wanted"
		return nil, []Problem{at}
	}
	asJSON, err := kyaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, typeProblems(err)
	}
	var value map[string]any
	if err := utiljson.Unmarshal(asJSON, &value); err != nil {
		at.Message = err.Error()
		return nil, []Problem{at}
	}
	return &document{root: root, value: value}, nil
}

var lineInMessage = regexp.MustCompile(`^(?:yaml: )*(?:line (\d+): )?`)

// cutLine takes `yaml: line 3: ` off a YAML library's message; the line is 0 if there is none.
func cutLine(message string) (line int, rest string) {
	message = strings.TrimPrefix(strings.TrimSpace(message), "error converting YAML to JSON: ")
	found := lineInMessage.FindStringSubmatch(message)
	line, _ = strconv.Atoi(found[1])
	return line, strings.TrimPrefix(message, found[0])
}

// brokenSyntax says where a document stops being YAML. Of what the parser misses, yaml.v3 names the line where the
// enclosing block begins and yaml.v2 the line before the one in question; of what the scanner misses, both are right.
func brokenSyntax(text []byte, err error) Problem {
	line, message := cutLine(err.Error())
	if strings.HasPrefix(message, "did not find expected") {
		if _, err := kyaml.YAMLToJSON(text); err != nil {
			other, _ := cutLine(err.Error())
			line = max(line, other) + 1
		}
	}
	lines := bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n")) + 1
	return Problem{Line: min(max(line, 1), lines), Message: "not valid YAML: " + message}
}

// typeProblems makes problems of what a YAML library says about a document that parses: keys that stand twice, anchors
// without end. It may say several things at once.
func typeProblems(err error) []Problem {
	messages := []string{err.Error()}
	if _, list, ok := strings.Cut(err.Error(), "unmarshal errors:\n"); ok {
		messages = strings.Split(list, "\n")
	}
	var problems []Problem
	for _, message := range messages {
		line, message := cutLine(message)
		problems = append(problems, Problem{Line: max(line, 1), Message: "not valid YAML: " + message})
	}
	return problems
}

// objects unpacks a `kind: List`, as `kubectl get -o yaml` writes it; any other document is one object.
func (d *document) objects() ([]*document, []Problem) {
	if d.value["kind"] != "List" || d.value["apiVersion"] != "v1" {
		return []*document{d}, nil
	}
	items, _ := d.value["items"].([]any)
	var list []*document
	var problems []Problem
	for i, item := range items {
		value, isMap := item.(map[string]any)
		path := fmt.Sprintf("items[%d]", i)
		node := find(d.root, path)
		if !isMap || node.Kind != yaml.MappingNode {
			problems = append(problems, Problem{
				Line:    node.Line,
				Field:   path,
				Message: "not a Kubernetes object: a mapping with apiVersion and kind is wanted",
			})
			continue
		}
		list = append(list, &document{root: node, value: value})
	}
	return list, problems
}
