"""What the ICHAnalysis module is made of: nodes to volumes and back, prompts, results, worker and panel parts."""
