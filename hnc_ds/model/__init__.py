"""Any open_clip model, with the parts that training needs."""
