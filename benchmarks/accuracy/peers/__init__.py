"""The methods: one file each, each a function from a `Task` to a `Fitted`."""
