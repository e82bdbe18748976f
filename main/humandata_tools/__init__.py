"""HumanData files from results of inference."""
