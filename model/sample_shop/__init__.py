"""Generator of the sample shop for `rcml demo`: items, pictures, shoppers and purchases."""
