"""The paths of the API, one file a noun. A route turns a request into a question and an answer into JSON."""
