"""What only the lessons need: what notebooks begin with, show, check and let people touch. The recommender is above."""
