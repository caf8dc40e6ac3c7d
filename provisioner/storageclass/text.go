package storageclass

// maxText is how many characters of a foreign text an event shows.
const maxText = 100

// Truncate shortens a text that was written by a user, so that an event stays readable.
func Truncate(text string) string {
	if runes := []rune(text); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return text
}
