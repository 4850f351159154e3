"""Recipes: one module per thing that is built, each with its inputs hashed into the cache's key."""
