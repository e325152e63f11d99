"""What a model answers: teacher-forced and in free generation, and what an answer says."""
