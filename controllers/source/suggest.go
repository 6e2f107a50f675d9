package source

import (
	"fmt"
	"strings"
)

// didYouMean returns `; did you mean "x"?` if one of the known names is near what was written, else "".
func didYouMean(written string, known []string) string {
	best, bestDistance := "", len(written)/3+1 // a typo in each third of the word is still the same word
	for _, name := range known {
		d := distance(strings.ToLower(written), strings.ToLower(name))
		if d < bestDistance || (d == bestDistance && (best == "" || name < best)) {
			best, bestDistance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is how many letters must be added, removed or replaced to make one word of the other (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
