"""Everyday words and phrases from which items are put together."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
NOUNS = (
    "apple", "basket", "bridge", "butter", "candle", "carpet", "castle", "cheese", "corner", "dragon", "engine",
    "feather", "finger", "forest", "garden", "hammer", "harbour", "island", "jacket", "kettle", "ladder", "lantern",
    "market", "mirror", "mountain", "needle", "orange", "paper", "pencil", "pepper", "pillow", "planet", "pocket",
    "rabbit", "ribbon", "river", "saddle", "school", "shadow", "silver", "spider", "station", "summer", "table",
    "thunder", "ticket", "tunnel", "village", "violin", "window", "winter",
)  # fmt: skip
FIRST_NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas", "Karla", "Leo")
CITIES = ("Lisbon", "Oslo", "Prague", "Vienna", "Dublin", "Riga", "Turin", "Ghent", "Porto", "Malmo", "Graz", "Lyon")
JOBS = ("baker", "nurse", "teacher", "plumber", "pilot", "farmer", "painter", "lawyer", "driver", "cook")
GOODS = ("lamp", "chair", "kettle", "bicycle", "blanket", "clock", "mirror", "backpack", "teapot", "umbrella")

# Countries and their capitals by law, by part of the world; without those that have several, or one of their own name.
CAPITALS = (
    "Algeria: Algiers, Angola: Luanda, Botswana: Gaborone, Burkina Faso: Ouagadougou, Burundi: Gitega, Cameroon: "
    "Yaounde, Cape Verde: Praia, Chad: N'Djamena, Comoros: Moroni, Egypt: Cairo, Eritrea: Asmara, Ethiopia: Addis "
    "Ababa, Gabon: Libreville, Gambia: Banjul, Ghana: Accra, Guinea: Conakry, Kenya: "
    "Nairobi, Lesotho: Maseru, Liberia: Monrovia, Libya: Tripoli, Madagascar: Antananarivo, Malawi: Lilongwe, Mali: "
    "Bamako, Mauritania: Nouakchott, Mauritius: Port Louis, Morocco: Rabat, Mozambique: Maputo, Namibia: Windhoek, "
    "Niger: Niamey, Nigeria: Abuja, Rwanda: Kigali, Senegal: Dakar, Seychelles: Victoria, Sierra Leone: Freetown, "
    "Somalia: Mogadishu, South Sudan: Juba, Sudan: Khartoum, Tanzania: Dodoma, Togo: Lome, Tunisia: Tunis, Uganda: "
    "Kampala, Zambia: Lusaka, Zimbabwe: Harare",
    "Afghanistan: Kabul, Armenia: Yerevan, Azerbaijan: Baku, Bahrain: Manama, Bangladesh: Dhaka, Bhutan: Thimphu, "
    "Brunei: Bandar Seri Begawan, Cambodia: Phnom Penh, China: Beijing, Georgia: Tbilisi, India: New Delhi, "
    "Iran: Tehran, Iraq: Baghdad, Japan: Tokyo, Jordan: Amman, Kazakhstan: Astana, Kyrgyzstan: "
    "Bishkek, Laos: Vientiane, Lebanon: Beirut, Malaysia: Kuala Lumpur, Maldives: Male, Mongolia: Ulaanbaatar, "
    "Myanmar: Naypyidaw, Nepal: Kathmandu, North Korea: Pyongyang, Oman: Muscat, Pakistan: Islamabad, Philippines: "
    "Manila, Qatar: Doha, Saudi Arabia: Riyadh, South Korea: Seoul, Syria: Damascus, Tajikistan: "
    "Dushanbe, Thailand: Bangkok, Turkey: Ankara, Turkmenistan: Ashgabat, United Arab Emirates: Abu Dhabi, "
    "Uzbekistan: Tashkent, Vietnam: Hanoi, Yemen: Sanaa",
    "Albania: Tirana, Austria: Vienna, Belarus: Minsk, Belgium: Brussels, Bosnia and Herzegovina: Sarajevo, "
    "Bulgaria: Sofia, Croatia: Zagreb, Cyprus: Nicosia, Czech Republic: Prague, Denmark: Copenhagen, Estonia: "
    "Tallinn, Finland: Helsinki, France: Paris, Germany: Berlin, Greece: Athens, Hungary: Budapest, Iceland: "
    "Reykjavik, Ireland: Dublin, Italy: Rome, Latvia: Riga, Liechtenstein: Vaduz, Lithuania: Vilnius, Malta: "
    "Valletta, Moldova: Chisinau, Montenegro: Podgorica, Netherlands: Amsterdam, North Macedonia: Skopje, Norway: "
    "Oslo, Poland: Warsaw, Portugal: Lisbon, Romania: Bucharest, Russia: Moscow, Serbia: Belgrade, Slovakia: "
    "Bratislava, Slovenia: Ljubljana, Spain: Madrid, Sweden: Stockholm, Switzerland: Bern, Ukraine: Kyiv, United "
    "Kingdom: London",
    "Argentina: Buenos Aires, Bahamas: Nassau, Barbados: Bridgetown, Belize: Belmopan, Brazil: Brasilia, Canada: "
    "Ottawa, Chile: Santiago, Colombia: Bogota, Costa Rica: San Jose, Cuba: Havana, Dominica: Roseau, Dominican "
    "Republic: Santo Domingo, Ecuador: Quito, Grenada: Saint George's, Guyana: Georgetown, Haiti: Port-au-Prince, "
    "Honduras: Tegucigalpa, Jamaica: Kingston, Nicaragua: Managua, Paraguay: Asuncion, Peru: Lima, Saint Lucia: "
    "Castries, Suriname: Paramaribo, Trinidad and Tobago: Port of Spain, United States: Washington, Uruguay: "
    "Montevideo, Venezuela: Caracas",
    "Australia: Canberra, Fiji: Suva, New Zealand: Wellington, Papua New Guinea: Port Moresby, Samoa: Apia, Solomon "
    "Islands: Honiara, Tonga: Nuku'alofa, Tuvalu: Funafuti, Vanuatu: Port Vila",
)

# What may be liked, and what is said of it in praise and in blame; the first six and three stand in the shipped items.
THINGS = (
    "The concert", "The hotel", "The second season", "The repair", "The course", "The ferry trip",
    "The dinner", "The lecture", "The museum", "The new phone",
)  # fmt: skip
PRAISE = (
    "was not nearly as bad as I had feared", "is anything but boring", "could hardly have gone better",
    "was wonderful", "could not have been better", "was worth every penny", "is one I would recommend to anybody",
    "was not bad at all", "exceeded all my expectations", "left nothing to be desired", "was far from disappointing",
    "was over too soon",
)  # fmt: skip
BLAME = (
    "was not as good as everybody says", "is anything but useful", "could hardly have gone worse",
    "was terrible", "could not have been worse", "was a waste of money", "is one I would not recommend to anybody",
    "was not good at all", "fell short of all my expectations", "left much to be desired", "was far from impressive",
    "did not end soon enough",
)  # fmt: skip
